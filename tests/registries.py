"""A real registry for tests (Debian's docker-registry): TLS by an authority of its own, and a password."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ailab.waiting import wait_for

_KEPT_BYTES = 3 * 10**9
USER, PASSWORD = "lin", "correct-horse"
_MISSING = [name for name in ("docker-registry", "htpasswd", "ip") if shutil.which(name) is None]
needs_registry = pytest.mark.skipif(
    bool(_MISSING) or os.geteuid() != 0,
    reason=f"pushing and pulling is not tested: it needs root, docker-registry, apache2-utils, iproute2 ({_MISSING})",
)


@dataclass(frozen=True)
class Registry:
    """One that runs: its host:port, the certificate of the authority that its own is of, its log, its process, and
    where it keeps what it has."""

    host: str
    authority: Path
    log: Path
    process: subprocess.Popen[bytes]
    store: Path

    def is_given(self, name: str) -> bool:
        """Whether a layer of this image is just on its way here."""
        return any((self.store / "docker/registry/v2/repositories" / name / "_uploads").glob("*/data"))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It listens, and does nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def trust(self, authority: Path | None = None) -> Path:
        """Have engines on this machine trust it, or an authority that is not its own; the folder to remove."""
        folder = Path("/etc/docker/certs.d") / self.host
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(authority or self.authority, folder / "ca.crt")
        return folder


def kept_store() -> Path:
    """A store that outlives the tests: an engine does not pack and send a large layer that the registry has already."""
    home = Path(os.environ.get("AILAB_CHECK_HOME") or tempfile.gettempdir())
    store = home / "cache" / "registry"
    if sum(path.stat().st_size for path in store.rglob("*") if path.is_file()) > _KEPT_BYTES:
        shutil.rmtree(store)
    return store


@contextmanager
def registry(folder: Path, address: str, store: Path | None = None) -> Iterator[Registry]:
    """A registry at `address`, which must not be a loopback one: engines do not look at the certificates of those.

    It keeps what it has in `store`, else in `folder`, where its other files are."""
    folder.mkdir(parents=True, exist_ok=True)
    store = store or folder / "store"
    make_authority(folder / "ca.pem", folder / "server.pem", address)
    hashed = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], check=True, capture_output=True, text=True).stdout
    (folder / "htpasswd").write_text(hashed)
    with socket.create_server((address, 0)) as probe:
        port = probe.getsockname()[1]
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(store)}},
        "http": {
            "addr": f"{address}:{port}",
            "tls": {"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")},
        },
        "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    log = folder / "registry.log"
    with log.open("wb") as sink:
        running = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=sink, stderr=sink)
    one = Registry(f"{address}:{port}", folder / "ca.pem", log, running, store)
    try:
        wait_for(lambda: _answers(one) or running.poll() is not None, timeout=20, what="the registry")
        assert running.poll() is None, log.read_text()
        yield one
    finally:
        running.terminate()
        running.wait(10)
        shutil.rmtree(Path("/etc/docker/certs.d") / one.host, ignore_errors=True)


def _answers(one: Registry) -> bool:
    host, _colon, port = one.host.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0


def make_authority(authority: Path, server: Path, address: str) -> None:
    """A certificate authority's certificate, and a server's for `address` that is of it, with its key in `.key`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def key() -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(ec.SECP256R1())

    def name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def begun(subject: str, issuer: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        return made.not_valid_after(now + datetime.timedelta(days=2))

    issuer, served = key(), key()
    ca = begun("ailab test authority", "ailab test authority", issuer.public_key())
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    of_server = begun(address, "ailab test authority", served.public_key()).add_extension(host, critical=False)
    authority.write_bytes(ca.sign(issuer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    server.write_bytes(of_server.sign(issuer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    text = served.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server.with_suffix(".key").write_bytes(text)
