"""A receiver of webhooks over real HTTP, which can also fail, hang, send elsewhere or never end."""

import contextlib
import datetime as dt
import ipaddress
import ssl
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks import Webhook, WebhookVerificationError


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float


class Receiver:
    """Answers by the path: `/ok`, `/fail`, `/fail-twice`, `/gone`, `/hang`, `/redirect`,
    `/endless`, `/drip`, `/close`, `/garbage`; remembers all that came.

    `/hang` answers once `release` is set.
    """

    def __init__(self, certificate: tuple[Path, Path] | None = None, *, address: str = "127.0.0.1"):
        self.address = address
        self.requests: list[Received] = []
        self.release = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((address, 0), self._handler())
        self._server.daemon_threads = True
        self.scheme = "http"
        if certificate is not None:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "/ok", host: str | None = None) -> str:
        return f"{self.scheme}://{host or self.address}:{self.port}{path}"

    def got(self, path: str = "/ok") -> list[Received]:
        """The requests to a path, in their order."""
        with self._lock:
            return [request for request in self.requests if request.path == path]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with receiver._lock:
                    receiver.requests.append(Received(self.path, headers, body, time.time()))
                with contextlib.suppress(OSError):
                    receiver._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        path = to.path.partition("?")[0]
        if path == "/close":
            to.close_connection = True
            return
        if path == "/garbage":
            to.wfile.write(b"this is no HTTP\r\n\r\n")
            return
        if path == "/hang":
            self.release.wait(600)
        failing = path == "/fail" or (path == "/fail-twice" and len(self.got(to.path)) <= 2)
        status = {"/gone": 410, "/redirect": 302}.get(path, 500 if failing else 200)
        to.send_response(status)
        if path == "/redirect":
            to.send_header("Location", self.url("/ok"))
        to.end_headers()
        while path == "/endless":
            to.wfile.write(b"x" * 65536)
        while path == "/drip" and not self.release.wait(0.05):
            to.wfile.write(b"x")


def signed_with(secret: str, request: Received) -> bool:
    """Whether the public Standard Webhooks library verifies the request with this secret."""
    try:
        Webhook(secret).verify(request.body, request.headers)
    except WebhookVerificationError as error:
        if str(error) != "No matching signature found":
            raise
        return False
    return True


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A certificate of its own signing for these names and addresses, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver of a test")])
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    chain, private = folder / "certificate.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, private


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
