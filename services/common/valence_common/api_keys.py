"""The format of an API key: `vl_<id>_<secret><checksum>`, in lower-case hexadecimal.

The id identifies the key and the secret (192 bits) proves possession. The checksum is the CRC-32 of
everything before it: a mistyped or invented key is rejected without a query, and secret scanners
can recognise leaked keys.
"""

import hashlib
import re
import secrets
import uuid
import zlib
from typing import Final, NamedTuple

from valence_common.problems import InvalidCredential

PREFIX: Final = "vl_"
SECRET_BYTES: Final = 24

_KEY = re.compile(r"vl_([0-9a-f]{32})_([0-9a-f]{48})([0-9a-f]{8})")


class ParsedKey(NamedTuple):
    """The id of a key as presented, and the SHA-256 of its secret."""

    key_id: uuid.UUID
    secret_hash: bytes


def make(key_id: uuid.UUID) -> tuple[str, bytes]:
    """Return a new key for this id, to be shown once, and the hash to store."""
    secret = secrets.token_hex(SECRET_BYTES)
    body = f"{PREFIX}{key_id.hex}_{secret}"
    return f"{body}{_checksum(body)}", _hash(secret)


def read(key: str) -> ParsedKey:
    """Parse a key; raise `InvalidCredential` for one that `make` cannot have written."""
    match = _KEY.fullmatch(key)
    if match is None or _checksum(key[:-8]) != match[3]:
        raise InvalidCredential
    return ParsedKey(uuid.UUID(match[1]), _hash(match[2]))


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
