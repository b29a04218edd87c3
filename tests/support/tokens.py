"""Tokens as nobody would issue them, signed with the real keys where that matters."""

import base64
import hashlib
import hmac
import json
import time
import uuid
from pathlib import Path
from typing import Any

DROP = object()


def encode(part: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def decode(part: str) -> bytes:
    """What `encode` took."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def secret_of(keyring: Path) -> tuple[str, bytes]:
    """The active key of a keyring file: its kid and its bytes."""
    content = json.loads(keyring.read_bytes())
    keys = {entry["kid"]: entry["key"] for entry in content["keys"]}
    return content["active"], decode(keys[content["active"]])


def sign(
    header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes, secret: bytes, digest: str
) -> str:
    """A token of whatever header and claims."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)
    ]
    signed = ".".join(encode(part) for part in parts)
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), digest))}"


class Forge:
    """Makes tokens like those of a keyring, but for what a test changes."""

    def __init__(self, keyring: Path, user_id: str | None = None):
        self.kid, self.secret = secret_of(keyring)
        self.user_id = user_id or str(uuid.uuid4())

    def header(self, **changes: Any) -> dict[str, Any]:
        """The header of a good token, changed; `DROP` leaves a member out."""
        return _changed({"alg": "HS256", "typ": "at+jwt", "kid": self.kid}, changes)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good token, changed; `DROP` leaves one out."""
        now = int(time.time())
        claims = {
            "iss": "valence",
            "aud": "valence",
            "sub": self.user_id,
            "sid": str(uuid.uuid4()),
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "scope": "analyze batch history",
        }
        return _changed(claims, changes)

    def token(
        self, header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None
    ) -> str:
        """A token that is right but for these changes, and signed for what it then says."""
        return self.sign(self.header(**(header or {})), self.claims(**(claims or {})))

    def sign(self, header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes) -> str:
        """Sign with the active key, with HMAC-SHA256."""
        return sign(header, claims, self.secret, hashlib.sha256().name)


def _changed(members: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (members | changes).items() if value is not DROP}
