"""The keys that sign access tokens: one JSON file, reloaded when it changes.

    {"active": "<kid>", "keys": [{"kid": "...", "key": "<base64url>", "verify_until": null}]}

Keys rotate in three steps: add, activate, drop. A key without `verify_until` verifies for ever, any
other until that time (RFC 3339). A new key is the last in the list. Weak keys stop start-up; if a
later version of the file is invalid, the last valid keys stay in use. `add`, `activate` and `drop`
turn one content of the file into the next; the caller stores it.
"""

import base64
import binascii
import re
import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import structlog

MIN_KEY_BYTES = 32
MIN_DISTINCT_BYTES = 12  # 32 random bytes have fewer with a probability below 1e-11
RELOAD_SECONDS = 1.0
# The longest lifetime of a token with its leeway, plus ten minutes for the slowest replica to load
# the new active key.
RETIRES_AFTER = timedelta(minutes=71)

_KID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class KeyringError(Exception):
    """The keyring is unusable; the message names the file and the rule, never a key."""


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    kid: str
    key: str
    verify_until: datetime | None = None

    @property
    def end(self) -> datetime | None:
        """`verify_until`, with UTC where it has no time zone."""
        until = self.verify_until
        return until.replace(tzinfo=UTC) if until and until.tzinfo is None else until


class _File(msgspec.Struct, forbid_unknown_fields=True):
    active: str
    keys: list[_Entry]


class SigningKey(msgspec.Struct, frozen=True):
    """One HMAC key; `verify_until` is a Unix time, or None for no end."""

    kid: str
    secret: bytes
    verify_until: float | None


class KeyInfo(msgspec.Struct, frozen=True):
    """The public facts of a key: it signs, waits to be activated, or verifies until its end."""

    kid: str
    active: bool
    waiting: bool
    verify_until: datetime | None


class Keyring:
    """The keys of one file, reloaded when it changes; the first load may raise `KeyringError`."""

    def __init__(self, path: Path):
        self.path = path
        self._checked = time.monotonic()
        self._stamp = self._stat()
        self._active, self._keys = _parse(path)

    def active(self) -> SigningKey:
        """Return the key that signs."""
        self._refresh()
        return self._keys[self._active]

    def verification_key(self, kid: str) -> SigningKey | None:
        """Return the key with that id if it may still verify, or None."""
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
    """Return the content of a new keyring file, with one random key."""
    entry = _new_entry()
    return msgspec.json.encode(_File(active=entry.kid, keys=[entry]))


def list_keys(content: bytes) -> list[KeyInfo]:
    """Return the keys in the order of the file, without their secrets."""
    file = _decode(content)
    waiting = _waiting(file)
    return [
        KeyInfo(entry.kid, entry.kid == file.active, entry is waiting, entry.end)
        for entry in file.keys
    ]


def add(content: bytes) -> bytes:
    """Append a new key, which verifies and does not sign yet."""
    file = _decode(content)
    if waiting := _waiting(file):
        raise KeyringError(f"key {waiting.kid} is waiting already: activate it first")
    file.keys.append(_new_entry())
    return msgspec.json.encode(file)


def activate(content: bytes, now: datetime, kid: str | None = None) -> bytes:
    """Make the waiting key, or the key `kid`, sign; all others get a `verify_until`.

    To roll back, name the key that signed before. Raise `KeyringError` when its `verify_until` has
    passed.
    """
    file = _decode(content)
    entry = _waiting(file) if kid is None else _find(file, kid)
    if entry is None:
        raise KeyringError("no key is waiting to be activated: add one first")
    if entry.end is not None and entry.end <= now:
        raise KeyringError(f"key {entry.kid} has expired: add a new one instead")
    file.active, entry.verify_until = entry.kid, None
    for other in file.keys:
        if other is not entry and other.verify_until is None:
            other.verify_until = (now + RETIRES_AFTER).replace(microsecond=0)
    return msgspec.json.encode(file)


def drop(content: bytes, now: datetime, kid: str | None = None) -> bytes:
    """Remove the keys whose `verify_until` has passed, or the key `kid`."""
    file = _decode(content)
    if kid is not None:
        dropped = [_find(file, kid)]
    else:
        dropped = [entry for entry in file.keys if entry.end is not None and entry.end <= now]
    if any(entry.kid == file.active for entry in dropped):
        raise KeyringError(f"key {file.active} is active: activate another one before dropping it")
    file.keys = [entry for entry in file.keys if entry not in dropped]
    return msgspec.json.encode(file)


def _new_entry() -> _Entry:
    key = base64.urlsafe_b64encode(secrets.token_bytes(MIN_KEY_BYTES)).rstrip(b"=").decode()
    return _Entry(kid=secrets.token_hex(8), key=key)


def _find(file: _File, kid: str) -> _Entry:
    for entry in file.keys:
        if entry.kid == kid:
            return entry
    raise KeyringError("there is no key with that kid")


def _waiting(file: _File) -> _Entry | None:
    """Return the newest key if it has never signed; a key that did has a `verify_until`."""
    last = file.keys[-1]
    return last if last.kid != file.active and last.verify_until is None else None


def _parse(path: Path) -> tuple[str, dict[str, SigningKey]]:
    try:
        file = _decode(path.read_bytes())
        return file.active, {entry.kid: _key(entry) for entry in file.keys}
    except OSError as error:
        raise KeyringError(f"keyring {path} cannot be read: {error.strerror}") from None
    except KeyringError as error:
        raise KeyringError(f"keyring {path}: {error}") from None


def _decode(content: bytes) -> _File:
    """Parse and validate a file; raise `KeyringError` naming the rule that it breaks."""
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise KeyringError("it does not have the form that SECURITY.md describes") from None
    kids = [entry.kid for entry in file.keys]
    for entry in file.keys:
        _key(entry)
    if len(set(kids)) != len(kids):
        raise KeyringError("two keys have the same kid")
    if file.active not in kids:
        raise KeyringError("no key has the active kid")
    if _find(file, file.active).verify_until is not None:
        # Past it, the active key would sign tokens that no process accepts.
        raise KeyringError("the active key has a verify_until")
    return file


def _key(entry: _Entry) -> SigningKey:
    if not _KID.fullmatch(entry.kid):
        raise KeyringError("a kid is not 1-64 of A-Z a-z 0-9 . _ -")
    try:
        padding = "=" * (-len(entry.key) % 4)
        secret = base64.b64decode(entry.key + padding, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise KeyringError(f"key {entry.kid} is not base64url") from None
    if len(secret) < MIN_KEY_BYTES or len(set(secret)) < MIN_DISTINCT_BYTES:
        raise KeyringError(f"key {entry.kid} is weak, it needs {MIN_KEY_BYTES} random bytes")
    return SigningKey(entry.kid, secret, entry.end.timestamp() if entry.end else None)
