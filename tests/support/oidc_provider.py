"""A small OpenID provider over real HTTP, which can also be away, slow, odd or dishonest."""

import base64
import contextlib
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from support.tokens import DROP, encode

CLIENT_ID = "valence client"
CLIENT_SECRET = "a secret: with/odd%characters"

Answer = tuple[int, dict[str, str], bytes]


def _number(value: int, size: int | None = None) -> str:
    return encode(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class RsaSigner:
    """An RSA key of the provider, for RS256 or PS256."""

    def __init__(self, kid: str, algorithm: str = "RS256", bits: int = 2048):
        self.kid, self.algorithm = kid, algorithm
        self._key = rsa.generate_private_key(65537, bits)

    @property
    def jwk(self) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        n, e = _number(numbers.n), _number(numbers.e)
        return {"kty": "RSA", "kid": self.kid, "use": "sig", "n": n, "e": e}

    def sign(self, data: bytes) -> bytes:
        how: padding.AsymmetricPadding = padding.PKCS1v15()
        if self.algorithm == "PS256":
            how = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        return self._key.sign(data, how, hashes.SHA256())


class EcSigner:
    """A P-256 key of the provider, for ES256."""

    def __init__(self, kid: str):
        self.kid, self.algorithm = kid, "ES256"
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        x, y = _number(numbers.x, 32), _number(numbers.y, 32)
        return {"kty": "EC", "crv": "P-256", "kid": self.kid, "alg": "ES256", "x": x, "y": y}

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def signed(signer: RsaSigner | EcSigner, claims: Any, **header: Any) -> str:
    """A token of these claims as the signer makes it, but for changes of its header."""
    head = {"alg": signer.algorithm, "typ": "JWT", "kid": signer.kid} | header
    head = {name: value for name, value in head.items() if value is not DROP}
    parts = ".".join(encode(json.dumps(part).encode()) for part in (head, claims))
    return f"{parts}.{encode(signer.sign(parts.encode()))}"


class OidcProvider:
    """The provider; whoever comes to its login page is `person`, logged in already.

    `claims` changes what its ID tokens say, `make_token` how they are made, `answers` replaces the
    answer of a path by another or by None, which is silence; one of a path in `dripping` comes a
    byte at a time. All that it gave is in `secrets`.
    """

    def __init__(self) -> None:
        self.rsa = RsaSigner("rsa-1")
        self.signer: RsaSigner | EcSigner = self.rsa
        self.keys: list[dict[str, Any]] = [self.rsa.jwk]
        self.reset()
        self.requests: list[str] = []
        self.secrets: set[str] = {CLIENT_SECRET}
        self._codes: dict[str, dict[str, str]] = {}
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def reset(self) -> None:
        """Be honest, awake and standing on the first key again."""
        self.signer, self.keys = self.rsa, [self.rsa.jwk]
        self.person: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.discovery: dict[str, Any] = {}
        self.authorized: dict[str, str] = {}
        self.make_token: Callable[[dict[str, Any]], str] | None = None
        self.answers: dict[str, Answer | None] = {}
        self.dripping: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def person_is(self, subject: str, **claims: Any) -> None:
        """Who logs in from now on: by default with an address that the provider has checked."""
        email = f"{subject}@example.com"
        self.person = {"sub": subject, "email": email, "email_verified": True} | claims
        self.secrets |= {subject, email}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                self._answer(_single(self.rfile.read(length).decode()))

            def _answer(self, form: dict[str, str]) -> None:
                url = urlsplit(self.path)
                provider.requests.append(url.path)
                answer = provider._route(url.path, _single(url.query) | form, dict(self.headers))
                if answer is None:
                    provider._closing.wait(30)
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                if url.path in provider.dripping:
                    self._drip(body)
                else:
                    self.wfile.write(body)

            def _drip(self, body: bytes) -> None:
                with contextlib.suppress(OSError):
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        if provider._closing.wait(0.5):
                            return

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _route(self, path: str, form: dict[str, str], headers: dict[str, str]) -> Answer | None:
        if path in self.answers:
            return self.answers[path]
        routes: dict[str, Callable[[], Answer]] = {
            "/.well-known/openid-configuration": lambda: answer_json(self._document()),
            "/jwks": lambda: answer_json({"keys": self.keys}),
            "/authorize": lambda: self._authorize(form),
            "/token": lambda: self._token(form, headers.get("Authorization", "")),
            "/userinfo": lambda: self._userinfo(headers.get("Authorization", "")),
        }
        return routes[path]() if path in routes else answer_json({"error": "not_found"}, 404)

    def _document(self) -> dict[str, Any]:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "response_types_supported": ["code"],
        } | self.discovery
        return {name: value for name, value in document.items() if value is not DROP}

    def _authorize(self, form: dict[str, str]) -> Answer:
        assert {"code", CLIENT_ID, "S256"} == {
            form["response_type"],
            form["client_id"],
            form["code_challenge_method"],
        }
        assert "openid" in form["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = form
        self.secrets |= {code, form["nonce"], form["state"]}
        query = {"code": code, "state": form["state"]} | self.authorized
        return 302, {"Location": f"{form['redirect_uri']}?{urlencode(query)}"}, b""

    def _token(self, form: dict[str, str], authorization: str) -> Answer:
        asked = self._codes.pop(form.get("code", ""), None)
        if (CLIENT_ID, CLIENT_SECRET) != _client(form, authorization):
            return answer_json({"error": "invalid_client"}, 401)
        challenge = encode(hashlib.sha256(form["code_verifier"].encode()).digest())
        self.secrets.add(form["code_verifier"])
        if (
            asked is None
            or form["grant_type"] != "authorization_code"
            or form["redirect_uri"] != asked["redirect_uri"]
            or challenge != asked["code_challenge"]
        ):
            return answer_json({"error": "invalid_grant", "error_description": "SECRETIVE"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.person,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not DROP}
        token = self.make_token(claims) if self.make_token else signed(self.signer, claims)
        access = secrets.token_urlsafe(16)
        self.secrets |= {token or access, f"Bearer {access}", access}
        return answer_json({"access_token": access, "token_type": "Bearer", "id_token": token})

    def _userinfo(self, authorization: str) -> Answer:
        if authorization not in self.secrets:
            return answer_json({"error": "invalid_token"}, 401)
        return answer_json({"sub": self.person["sub"]} | self.userinfo)


def answer_json(content: Any, status: int = 200) -> Answer:
    """A JSON answer."""
    return status, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _single(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}


def _client(form: dict[str, str], authorization: str) -> tuple[str, str]:
    if not authorization.startswith("Basic "):
        return form.get("client_id", ""), form.get("client_secret", "")
    name, _, secret = base64.b64decode(authorization[6:]).decode().partition(":")
    return unquote(name), unquote(secret)
