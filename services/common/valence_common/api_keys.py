"""How an API key is written: `vl_<id>_<secret><checksum>`, all in lower-case hexadecimal.

The id finds the key, the secret (192 bits) proves it, and the CRC-32 of all before it lets anybody
refuse a mistyped or invented key without a query, and scanners find lost ones.
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
    """Which key it says it is, and the SHA-256 of the secret that came with it."""

    key_id: uuid.UUID
    secret_hash: bytes


def make(key_id: uuid.UUID) -> tuple[str, bytes]:
    """A new key for this id, to be shown once, and the hash to be kept."""
    secret = secrets.token_hex(SECRET_BYTES)
    body = f"{PREFIX}{key_id.hex}_{secret}"
    return f"{body}{_checksum(body)}", _hash(secret)


def read(key: str) -> ParsedKey:
    """What a key claims; raises `InvalidCredential` for what `make` cannot have written."""
    match = _KEY.fullmatch(key)
    if match is None or _checksum(key[:-8]) != match[3]:
        raise InvalidCredential
    return ParsedKey(uuid.UUID(match[1]), _hash(match[2]))


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
