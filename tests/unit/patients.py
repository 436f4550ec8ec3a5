"""Machines and labs for the doctor's tests: this one's facts, with what a test changes; servers on loopback."""

from __future__ import annotations

import http.server
import os
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ailab import checkup
from ailab.doctor.facts import Facts
from ailab.doctor.findings import Finding, Severity
from ailab.paths import LabPaths, private_folder


def a_lab(folder: Path, settings: str = "") -> LabPaths:
    """A lab that has been started once: lab.toml, and its private folders as the daemon makes them."""
    paths = LabPaths(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths.settings.write_text(settings or '[environment]\nstack = "science"\n', encoding="utf-8")
    for private in paths.private_folders:
        private_folder(private)
    return paths


def facts_of(home: Path, lab: LabPaths | None = None, **changes: Any) -> Facts:
    """The facts as the command gathers them, of an AILAB_HOME of the test's own; no proxy, no certificates."""
    variables = {"AILAB_HOME": str(home), "HOME": str(home)}
    facts = checkup.gather(lab.root if lab else None, variables)
    return replace(facts, **changes)


def severities(findings: Iterable[Finding]) -> list[Severity]:
    return [finding.severity for finding in findings]


def system(folder: Path, **files: str) -> Path:
    """A tree of /proc, /sys and /etc with these files; `__` in a name stands for `/`."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@contextmanager
def serving(body: str = "", *, status: int = 200, certificate: Path | None = None, date: str = "") -> Iterator[str]:
    """A server on loopback that answers every GET so; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = body.encode()
            self.send_response_only(status)
            if date:
                self.send_header("Date", date)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def self_signed(folder: Path, *, days: int = 1) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signed itself, valid until `days` from now: (with its key, alone)."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the test's authority")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both, alone = folder / "server.pem", folder / "authority.pem"
    both.write_bytes(secret + pem)
    alone.write_bytes(pem)
    return both, alone


def as_nobody(look: Callable[[], str]) -> str:
    """What `look` says in an account without privileges: to root, modes mean nothing."""
    if os.geteuid() != 0:
        return look()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os.write(writer, look().encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as said:
        return said.read()
