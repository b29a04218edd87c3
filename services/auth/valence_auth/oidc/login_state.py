"""A login on its way through the provider: sealed into a cookie, so that no process keeps it.

The cookie's key is derived from the keyring's and named in front, so a rotation breaks no login.
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


class Transaction(msgspec.Struct, frozen=True):
    """What one login must bring back: its state, its ID token's nonce, the verifier (PKCE)."""

    state: str
    nonce: str
    verifier: str

    @property
    def challenge(self) -> str:
        """The verifier as the provider hears of it first (S256 of RFC 7636)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def begin() -> Transaction:
    """A new transaction."""
    return Transaction(*(secrets.token_urlsafe(32) for _ in range(3)))


def seal(keyring: Keyring, transaction: Transaction) -> str:
    """The cookie's value: nobody else can read or make it."""
    key = keyring.active()
    sealed = _fernet(key).encrypt(msgspec.json.encode(transaction))
    return f"{key.kid}.{sealed.decode().rstrip('=')}"


def unseal(keyring: Keyring, cookie: str) -> Transaction | None:
    """The transaction of a cookie; None for one that is too old, or not ours."""
    kid, _, sealed = cookie.rpartition(".")
    key = keyring.verification_key(kid)
    if key is None or len(cookie) > MAX_COOKIE_BYTES:
        return None
    padded = sealed + "=" * (-len(sealed) % 4)
    try:
        content = _fernet(key).decrypt(padded, ttl=LIFETIME_SECONDS)
        return msgspec.json.decode(content, type=Transaction)
    except (InvalidToken, ValueError, msgspec.DecodeError):
        return None


def _fernet(key: SigningKey) -> Fernet:
    derived = HKDF(SHA256(), length=32, salt=None, info=b"valence oidc transaction")
    return Fernet(base64.urlsafe_b64encode(derived.derive(key.secret)))
