"""HTTP servers on loopback, for everything that downloads; what they are asked is noted."""

from __future__ import annotations

import http.server
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


@contextmanager
def serving(
    body: str = "",
    *,
    status: int = 200,
    certificate: Path | None = None,
    date: str = "",
    asked: list[str] | None = None,
) -> Iterator[str]:
    """A server that answers everything so; its address. `asked` gets each request's path, or, where the server is taken
    for a proxy, its whole address."""
    noted = [] if asked is None else asked

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            noted.append(self.path)
            data = body.encode()
            self.send_response_only(status)
            if date:
                self.send_header("Date", date)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_CONNECT = do_GET

        def log_message(self, *_words: object) -> None:
            pass

    with _listening(Handler, certificate) as address:
        yield address


@contextmanager
def serving_files(folder: Path) -> Iterator[str]:
    """A server of the files below `folder`, which nobody is to cache; its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: object, **named: object) -> None:
            super().__init__(*words, directory=str(folder), **named)  # type: ignore[arg-type]

        def end_headers(self) -> None:
            self.send_header("Cache-Control", "no-cache")
            super().end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    with _listening(Handler, None) as address:
        yield address


@contextmanager
def package_server(folder: Path, *, hashes: str = "sha256") -> Iterator[str]:
    """pypiserver, a package index as companies run it, with the files in `folder` and nothing else; its address. Its
    pages name a file's digest by the algorithm `hashes`, or none (empty)."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        import pypiserver

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

    roots = {"roots": [folder], "backend_arg": "simple-dir", "hash_algo": hashes or None, "disable_fallback": True}
    server = make_server("127.0.0.1", 0, pypiserver.app(**roots), ManyAtOnce, Quiet)
    with _running(server) as address:
        yield f"{address}/simple"


class ManyAtOnce(ThreadingMixIn, WSGIServer):
    """uv comes with fifty connections at once; the usual queue of five makes most of them wait for seconds."""

    request_queue_size = 128
    daemon_threads = True


@contextmanager
def _listening(handler: type[http.server.BaseHTTPRequestHandler], certificate: Path | None) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # The handshake waits for the connection's own thread: a client that never makes it holds up nobody else.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with _running(server) as address:
        yield address.replace("http://", "https://") if certificate else address


@contextmanager
def _running(server: http.server.HTTPServer) -> Iterator[str]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def private_authority(folder: Path, *, days: int = 1) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 with its key, and that of the authority that signed it, valid until `days` from now:
    what a server has, and what those who trust it have."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("authority", "server")}
    names = {name: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"the test's {name}")]) for name in keys}
    now = datetime.now(UTC)

    def certificate(name: str) -> bytes:
        unsigned = (
            x509.CertificateBuilder()
            .subject_name(names[name])
            .issuer_name(names["authority"])
            .public_key(keys[name].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        )
        return unsigned.sign(keys["authority"], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    secret = keys["server"].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server, authority = folder / "server.pem", folder / "authority.pem"
    authority.write_bytes(certificate("authority"))
    server.write_bytes(secret + certificate("server") + authority.read_bytes())
    return server, authority
