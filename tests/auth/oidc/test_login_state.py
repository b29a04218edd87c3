"""The sealed cookie that a login travels in."""

import time
from pathlib import Path

import pytest

from valence_auth.oidc import login_state
from valence_common import keyring
from valence_common.keyring import Keyring


def test_old_transactions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes, and a cookie of another keyring never."""
    (tmp_path / "one.json").write_bytes(keyring.generate())
    (tmp_path / "two.json").write_bytes(keyring.generate())
    one, two = Keyring(tmp_path / "one.json"), Keyring(tmp_path / "two.json")
    transaction = login_state.begin()
    cookie = login_state.seal(one, transaction)
    assert transaction == login_state.unseal(one, cookie)
    assert login_state.unseal(two, cookie) is None
    renamed = f"{two.active().kid}.{cookie.rpartition('.')[2]}"
    assert login_state.unseal(two, renamed) is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 595)
    assert transaction == login_state.unseal(one, cookie)
    monkeypatch.setattr(time, "time", lambda: now + 605)
    assert login_state.unseal(one, cookie) is None
