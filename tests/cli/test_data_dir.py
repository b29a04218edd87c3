"""The home: one owner at a time, and nothing in it that others may read."""

import subprocess
import sys
from pathlib import Path

import pytest

from valence.local.data_dir import Home
from valence.local.errors import LocalError
from valence_common import keyring


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    """A second start says who is there, and where; when the first is gone it may have it."""
    first, second = Home(tmp_path / "home"), Home(tmp_path / "home")
    with first.locked():
        with (
            pytest.raises(LocalError, match=r"^Valence already runs on \S*/home\.$"),
            second.locked(),
        ):
            pass
        first.announce("http://127.0.0.1:8000")
        with (
            pytest.raises(LocalError, match=r"\(pid \d+, http://127.0.0.1:8000\)\.$"),
            second.locked(),
        ):
            pass
    with second.locked():
        pass


HOLDER = """
import sys, time
from pathlib import Path
from valence.local.home import Home
with Home(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    """The kernel frees the lock; what stands in the file does not count."""
    command = [sys.executable, "-c", HOLDER, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert "held\n" == holder.stdout.readline()
        with pytest.raises(LocalError), Home(tmp_path).locked():
            pass
        holder.kill()
    with Home(tmp_path).locked():
        pass


def test_everything_in_it_is_private(tmp_path: Path) -> None:
    """Folders 0700, secrets and keys 0600, and git sees none of it."""
    home = Home(tmp_path / "home")
    with home.locked():
        home.write_secrets({"valence_redis_url": "redis://:secret@127.0.0.1:1/0"})
        home.make_keyring(keyring.generate())
    for folder in (home.folder, home.secrets, home.logs):
        assert 0o700 == folder.stat().st_mode & 0o777
    for file in (home.secrets / "valence_redis_url", home.keyring):
        assert 0o600 == file.stat().st_mode & 0o777
    assert "*" == (home.folder / ".gitignore").read_text().strip()


def test_the_keys_stay(tmp_path: Path) -> None:
    """Tokens of yesterday are good after a restart."""
    home = Home(tmp_path)
    home.make_keyring(keyring.generate())
    kept = home.keyring.read_bytes()
    home.make_keyring(keyring.generate())
    assert kept == home.keyring.read_bytes()


def test_a_home_that_cannot_be_is_named(tmp_path: Path) -> None:
    """One sentence, and what to set."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(LocalError, match="choose another with VALENCE_HOME"),
        Home(tmp_path / "file/home").locked(),
    ):
        pass
