"""The keyring: rotation, reloading, invalid files."""

import base64
import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from valence_common import keyring
from valence_common.keyring import KeyInfo, Keyring, KeyringError
from valence_common.security import LEEWAY_SECONDS, MAX_LIFETIME_SECONDS

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
END = NOW + keyring.RETIRES_AFTER
SLOWEST_RELOAD = timedelta(minutes=5)


@pytest.fixture(autouse=True)
def _reload_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the file with every use, not once a second."""
    monkeypatch.setattr(keyring, "RELOAD_SECONDS", 0.0)


def _key(kid: str, **more: Any) -> dict[str, Any]:
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return {"kid": kid, "key": secret, **more}


def _write(path: Path, active: str, *keys: dict[str, Any]) -> None:
    path.write_text(json.dumps({"active": active, "keys": keys}))


def test_generated_file_is_valid(keyring_file: Path) -> None:
    """`generate` creates one active key of 32 bytes."""
    keys = Keyring(keyring_file)
    assert 32 == len(keys.active().secret)
    assert keys.active() == keys.verification_key(keys.active().kid)


def test_rotation(tmp_path: Path) -> None:
    """Add, activate, drop, and back: each step is loaded; no key is lost before it is dropped."""
    path, a, b = tmp_path / "keyring.json", _key("a"), _key("b")
    _write(path, "a", a)
    keys = Keyring(path)
    _write(path, "a", a, b)
    assert ("a", "b") == (keys.active().kid, keys.verification_key("b").kid)
    _write(path, "b", a, b)
    assert ("b", "a") == (keys.active().kid, keys.verification_key("a").kid)
    _write(path, "b", b)
    assert keys.verification_key("a") is None
    _write(path, "a", a, b)
    assert "a" == keys.active().kid


def test_key_verifies_until_its_end(tmp_path: Path) -> None:
    """A key with an end verifies before it and not after; a time without a zone is UTC."""
    path = tmp_path / "keyring.json"
    hour = timedelta(hours=1)
    now = datetime.now(UTC)
    _write(
        path,
        "active",
        _key("active"),
        _key("past", verify_until=(now - hour).isoformat()),
        _key("future", verify_until=(now + hour).isoformat()),
        _key("naive", verify_until=(now + hour).replace(tzinfo=None).isoformat()),
        _key("naive-past", verify_until=(now - hour).replace(tzinfo=None).isoformat()),
    )
    keys = Keyring(path)
    known = {k for k in ("past", "future", "naive", "naive-past", "no") if keys.verification_key(k)}
    assert {"future", "naive"} == known


def test_mounted_secret_is_reloaded(tmp_path: Path) -> None:
    """Kubernetes changes a mounted Secret by replacing a symbolic link to its folder."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        _write(tmp_path / version / "keyring.json", version, _key(version))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "keyring.json").symlink_to("..data/keyring.json")
    keys = Keyring(tmp_path / "keyring.json")
    assert "v1" == keys.active().kid
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert "v2" == keys.active().kid
    assert keys.verification_key("v1") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"active":"x","keys":[]}', None])
def test_invalid_file_keeps_the_old_keys(keyring_file: Path, content: str | None) -> None:
    """The last valid keys stay in use until the file is valid again."""
    keys = Keyring(keyring_file)
    before = keys.active()
    if content is None:
        keyring_file.unlink()
    else:
        keyring_file.write_text(content)
    assert before == keys.active() == keys.verification_key(before.kid)
    _write(keyring_file, "new", _key("new"))
    assert "new" == keys.active().kid


def _encoded(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")


@pytest.mark.parametrize(
    "key",
    [
        "",
        _encoded(b"x"),
        _encoded(bytes(range(31))),
        _encoded(b"a" * 32),
        _encoded(b" " * 64),
        _encoded(b"changeme" * 4),
        _encoded(b"0123456789" * 4),
        "changeme",
        "true",
        "null",
        '"quoted"',
        "é" * 43,
        "+/" * 22,
        " " + _encoded(bytes(range(32))),
    ],
)
def test_weak_keys_are_rejected(tmp_path: Path, key: str) -> None:
    """The errors for short, repetitive and malformed keys do not contain them."""
    path = tmp_path / "keyring.json"
    _write(path, "one", {"kid": "one", "key": key})
    with pytest.raises(KeyringError) as refused:
        Keyring(path)
    assert str(path) in str(refused.value)
    assert len(key) < 8 or key not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        {"active": "b", "keys": [_key("a")]},
        {"active": "a", "keys": [_key("a"), _key("a")]},
        {"active": "a/b", "keys": [_key("a/b")]},
        {"active": "", "keys": [_key("")]},
        {"active": "a", "keys": [_key("a", unknown=1)]},
        {"active": "a", "keys": [_key("a")], "unknown": 1},
        {"active": "a", "keys": {"a": _key("a")}},
        {"active": "a", "keys": [_key("a", verify_until="tomorrow")]},
        {"keys": [_key("a")]},
        [],
    ],
)
def test_malformed_files_are_rejected(tmp_path: Path, content: object) -> None:
    """Any file that is not exactly a keyring stops start-up."""
    path = tmp_path / "keyring.json"
    path.write_text(json.dumps(content))
    with pytest.raises(KeyringError):
        Keyring(path)


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    """The error names the file and the reason."""
    with pytest.raises(KeyringError, match="cannot be read: No such file"):
        Keyring(tmp_path / "missing.json")


@pytest.mark.parametrize("hours", [-1, 1])
def test_active_key_with_an_end_is_rejected(tmp_path: Path, hours: int) -> None:
    """After its end it would sign tokens that no process accepts."""
    path = tmp_path / "keyring.json"
    end = datetime.now(UTC) + timedelta(hours=hours)
    _write(path, "a", _key("a", verify_until=end.isoformat()))
    with pytest.raises(KeyringError, match="the active key has a verify_until"):
        Keyring(path)


def _states(content: bytes) -> list[tuple[bool, bool, datetime | None]]:
    """Return for each key whether it signs, whether it waits, and its end."""
    return [(d.active, d.waiting, d.verify_until) for d in keyring.list_keys(content)]


def _kids(content: bytes) -> list[str]:
    return [described.kid for described in keyring.list_keys(content)]


def test_key_verifies_until_its_tokens_expire() -> None:
    """Also those of the slowest replica, which loads the new active key last."""
    longest = timedelta(seconds=MAX_LIFETIME_SECONDS + LEEWAY_SECONDS)
    assert keyring.RETIRES_AFTER >= longest + SLOWEST_RELOAD


def test_rotation_steps(tmp_path: Path) -> None:
    """Add, activate, drop: each step leaves a valid keyring, and lists the state of each key."""
    first = keyring.generate()
    assert [(True, False, None)] == _states(first)
    added = keyring.add(first)
    assert [(True, False, None), (False, True, None)] == _states(added)
    activated = keyring.activate(added, NOW)
    assert [(False, False, END), (True, False, None)] == _states(activated)
    assert activated == keyring.drop(activated, END - timedelta(seconds=1))
    dropped = keyring.drop(activated, END)
    assert [(True, False, None)] == _states(dropped)
    assert _kids(added) == [*_kids(first), *_kids(dropped)]
    path = tmp_path / "keyring.json"
    for content in (first, added, activated, dropped):
        path.write_bytes(content)
        assert Keyring(path).active().kid in _kids(content)


def test_steps_keep_other_keys() -> None:
    """No step changes a key that stays."""

    def secrets_of(content: bytes) -> dict[str, str]:
        return {entry["kid"]: entry["key"] for entry in json.loads(content)["keys"]}

    added = keyring.add(keyring.generate())
    dropped = keyring.drop(keyring.activate(added, NOW), END)
    assert secrets_of(added).items() >= secrets_of(dropped).items()
    assert 2 == len(set(secrets_of(added).values()))


def test_rollback() -> None:
    """The previous key signs again; the newer one verifies until its own end."""
    activated = keyring.activate(keyring.add(keyring.generate()), NOW)
    old, new = _kids(activated)
    back = keyring.activate(activated, NOW, old)
    assert [(True, False, None), (False, False, END)] == _states(back)
    again = keyring.activate(back, NOW, new)
    assert [(False, False, END), (True, False, None)] == _states(again)


def test_second_rotation_keeps_earlier_ends() -> None:
    """The end of a retiring key is not extended."""
    once = keyring.activate(keyring.add(keyring.generate()), NOW)
    later = NOW + timedelta(minutes=10)
    twice = keyring.activate(keyring.add(once), later)
    ends = [END, later + keyring.RETIRES_AFTER, None]
    assert ends == [described.verify_until for described in keyring.list_keys(twice)]


def test_waiting_key_is_dropped_by_name() -> None:
    """This cancels a rotation before the key signs."""
    added = keyring.add(keyring.generate())
    old, new = _kids(added)
    assert [old] == _kids(keyring.drop(added, NOW, new))
    assert [new] == _kids(keyring.drop(keyring.activate(added, NOW), NOW, old))


def test_steps_that_would_reject_valid_tokens_are_errors() -> None:
    """Nothing to activate, two waiting keys, dropping the active key, a past end."""
    first = keyring.generate()
    added = keyring.add(first)
    activated = keyring.activate(added, NOW)
    old, new = _kids(added)
    for step, sentence in (
        (lambda: keyring.activate(first, NOW), "no key is waiting to be activated"),
        (lambda: keyring.add(added), f"key {new} is waiting already"),
        (lambda: keyring.drop(added, NOW, old), f"key {old} is active"),
        (lambda: keyring.drop(added, NOW, "nothing"), "there is no key with that kid"),
        (lambda: keyring.activate(activated, NOW, "nothing"), "there is no key with that kid"),
        (lambda: keyring.activate(activated, END, old), f"key {old} has expired"),
    ):
        with pytest.raises(KeyringError, match=sentence):
            step()


def test_older_key_without_an_end_is_not_waiting() -> None:
    """Such keys, from a manual rotation, get an end with the next rotation."""
    by_hand = json.dumps({"active": "b", "keys": [_key("a"), _key("b")]}).encode()
    assert [KeyInfo("a", False, False, None), KeyInfo("b", True, False, None)] == (
        keyring.list_keys(by_hand)
    )
    with pytest.raises(KeyringError, match="no key is waiting"):
        keyring.activate(by_hand, NOW)
    rotated = keyring.activate(keyring.add(by_hand), NOW)
    assert [END, END, None] == [described.verify_until for described in keyring.list_keys(rotated)]


@pytest.mark.parametrize("content", [b"", b"null", b'{"active":"x","keys":[]}'])
def test_steps_require_a_valid_keyring(content: bytes) -> None:
    """A file that stops start-up is not rotated either."""
    for step in (
        lambda: keyring.add(content),
        lambda: keyring.activate(content, NOW),
        lambda: keyring.drop(content, NOW),
        lambda: keyring.list_keys(content),
    ):
        with pytest.raises(KeyringError):
            step()
