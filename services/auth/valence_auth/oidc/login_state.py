"""The state of a login at the provider, encrypted in a cookie, so that no process stores it.

The cookie's key is derived from a key of the keyring, whose id precedes it, so a key rotation
interrupts no login.
"""

import base64
import hashlib
import secrets
from typing import Final

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from valence_common.keyring import Keyring, SigningKey

LIFETIME_SECONDS: Final = 600
MAX_COOKIE_BYTES: Final = 1024


class LoginState(msgspec.Struct, frozen=True):
    """The values that one login has to return: state, nonce of the ID token, PKCE verifier."""

    state: str
    nonce: str
    verifier: str

    @property
    def challenge(self) -> str:
        """The PKCE challenge: the SHA-256 of the verifier (S256, RFC 7636)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def new() -> LoginState:
    """Return the state of a new login."""
    return LoginState(*(secrets.token_urlsafe(32) for _ in range(3)))


def encrypt(keyring: Keyring, state: LoginState) -> str:
    """Return the cookie's value."""
    key = keyring.active()
    token = _fernet(key).encrypt(msgspec.json.encode(state))
    return f"{key.kid}.{token.decode().rstrip('=')}"


def decrypt(keyring: Keyring, cookie: str) -> LoginState | None:
    """Return the state in a cookie; None if the cookie is expired or forged."""
    kid, _, token = cookie.rpartition(".")
    key = keyring.verification_key(kid)
    if key is None or len(cookie) > MAX_COOKIE_BYTES:
        return None
    padded = token + "=" * (-len(token) % 4)
    try:
        content = _fernet(key).decrypt(padded, ttl=LIFETIME_SECONDS)
        return msgspec.json.decode(content, type=LoginState)
    except (InvalidToken, ValueError, msgspec.DecodeError):
        return None


def _fernet(key: SigningKey) -> Fernet:
    derived = HKDF(SHA256(), length=32, salt=None, info=b"valence oidc transaction")
    return Fernet(base64.urlsafe_b64encode(derived.derive(key.secret)))
