"""The keys that sign access tokens: one JSON file, read again when it changes.

    {"active": "<kid>", "keys": [{"kid": "...", "key": "<base64url>", "verify_until": null}]}

Rotation is add, activate, drop: a key without `verify_until` verifies for ever, one with it until
then (RFC 3339). Weak keys stop start-up; a broken file later keeps the last good keys.
"""

import base64
import binascii
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

MIN_KEY_BYTES = 32
MIN_DISTINCT_BYTES = 12  # 32 random bytes have fewer with a chance below 1e-11
RELOAD_SECONDS = 1.0

_KID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class KeyringError(Exception):
    """The keyring cannot be used: says which file and which rule, never a key."""


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    kid: str
    key: str
    verify_until: datetime | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    active: str
    keys: list[_Entry]


class Key(msgspec.Struct, frozen=True):
    """One HMAC key; `verify_until` is a Unix time, or None for no end."""

    kid: str
    secret: bytes
    verify_until: float | None


class Keyring:
    """The keys of one file, kept fresh; raises `KeyringError` if they cannot be read at first."""

    def __init__(self, path: Path):
        self.path = path
        self._checked = time.monotonic()
        self._stamp = self._stat()
        self._active, self._keys = _parse(path)

    def active(self) -> Key:
        """The key that signs."""
        self._refresh()
        return self._keys[self._active]

    def verifying(self, kid: str) -> Key | None:
        """The key of that name if it may still verify."""
        self._refresh()
        key = self._keys.get(kid)
        if key is None or (key.verify_until is not None and time.time() > key.verify_until):
            return None
        return key

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._checked < RELOAD_SECONDS:
            return
        self._checked = now
        stamp = self._stat()
        if stamp == self._stamp:
            return
        try:
            self._active, self._keys = _parse(self.path)
        except KeyringError as error:
            structlog.get_logger().error("keyring_not_reloaded", reason=str(error))
        else:
            self._stamp = stamp
            structlog.get_logger().info("keyring_reloaded", keys=len(self._keys))

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def generate() -> bytes:
    """A new keyring file's content, with one random key."""
    kid = secrets.token_hex(8)
    key = base64.urlsafe_b64encode(secrets.token_bytes(MIN_KEY_BYTES)).rstrip(b"=").decode()
    return msgspec.json.encode(_File(active=kid, keys=[_Entry(kid=kid, key=key)]))


def _parse(path: Path) -> tuple[str, dict[str, Key]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KeyringError(f"keyring {path} cannot be read: {error.strerror}") from None
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise KeyringError(f"keyring {path} is not of the form that SECURITY.md shows") from None
    keys = {entry.kid: _key(path, entry) for entry in file.keys}
    if len(keys) != len(file.keys):
        raise KeyringError(f"keyring {path} holds two keys with one kid")
    if file.active not in keys:
        raise KeyringError(f"keyring {path} has no key with its active kid")
    if keys[file.active].verify_until is not None:
        # Only a key that retires has an end; past it, the active one would sign in vain.
        raise KeyringError(f"keyring {path}: the active key has a verify_until")
    return file.active, keys


def _key(path: Path, entry: _Entry) -> Key:
    if not _KID.fullmatch(entry.kid):
        raise KeyringError(f"keyring {path} holds a kid that is not 1-64 of A-Z a-z 0-9 . _ -")
    try:
        padding = "=" * (-len(entry.key) % 4)
        secret = base64.b64decode(entry.key + padding, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise KeyringError(f"keyring {path}: key {entry.kid} is not base64url") from None
    if len(secret) < MIN_KEY_BYTES or len(set(secret)) < MIN_DISTINCT_BYTES:
        raise KeyringError(
            f"keyring {path}: key {entry.kid} is weak, it needs {MIN_KEY_BYTES} random bytes"
        )
    until = entry.verify_until
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return Key(entry.kid, secret, None if until is None else until.timestamp())
