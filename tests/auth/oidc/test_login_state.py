"""The encrypted cookie with the state of a login."""

import time
from pathlib import Path

import pytest

from valence_auth.oidc import login_state
from valence_common import keyring
from valence_common.keyring import Keyring


def test_expired_state_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten minutes; a cookie of another keyring is always rejected."""
    (tmp_path / "one.json").write_bytes(keyring.generate())
    (tmp_path / "two.json").write_bytes(keyring.generate())
    one, two = Keyring(tmp_path / "one.json"), Keyring(tmp_path / "two.json")
    transaction = login_state.new()
    cookie = login_state.encrypt(one, transaction)
    assert transaction == login_state.decrypt(one, cookie)
    assert login_state.decrypt(two, cookie) is None
    renamed = f"{two.active().kid}.{cookie.rpartition('.')[2]}"
    assert login_state.decrypt(two, renamed) is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 595)
    assert transaction == login_state.decrypt(one, cookie)
    monkeypatch.setattr(time, "time", lambda: now + 605)
    assert login_state.decrypt(one, cookie) is None
