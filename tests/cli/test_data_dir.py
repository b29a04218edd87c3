"""The data folder: one owner at a time, and nothing in it that others can read."""

import subprocess
import sys
from pathlib import Path

import pytest

from valence.local.data_dir import DataDir
from valence.local.errors import LocalError
from valence_common import keyring


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    """A second start names the process and the URL; after the first has ended, it succeeds."""
    first, second = DataDir(tmp_path / "home"), DataDir(tmp_path / "home")
    with first.lock():
        with (
            pytest.raises(LocalError, match=r"^Valence already runs on \S*/home\.$"),
            second.lock(),
        ):
            pass
        first.record_owner("http://127.0.0.1:8000")
        with (
            pytest.raises(LocalError, match=r"\(pid \d+, http://127.0.0.1:8000\)\.$"),
            second.lock(),
        ):
            pass
    with second.lock():
        pass


HOLDER = """
import sys, time
from pathlib import Path
from valence.local.data_dir import DataDir
with DataDir(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    """The kernel releases the lock; the content of the file does not matter."""
    command = [sys.executable, "-c", HOLDER, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert "held\n" == holder.stdout.readline()
        with pytest.raises(LocalError), DataDir(tmp_path).lock():
            pass
        holder.kill()
    with DataDir(tmp_path).lock():
        pass


def test_everything_in_it_is_private(tmp_path: Path) -> None:
    """Folders have mode 0700, secrets and keys 0600, and git ignores all of it."""
    data_dir = DataDir(tmp_path / "home")
    with data_dir.lock():
        data_dir.write_secrets({"valence_redis_url": "redis://:secret@127.0.0.1:1/0"})
        data_dir.create_keyring(keyring.generate())
    for folder in (data_dir.path, data_dir.secrets, data_dir.logs):
        assert 0o700 == folder.stat().st_mode & 0o777
    for file in (data_dir.secrets / "valence_redis_url", data_dir.keyring):
        assert 0o600 == file.stat().st_mode & 0o777
    assert "*" == (data_dir.path / ".gitignore").read_text().strip()


def test_keyring_of_an_earlier_start_stays(tmp_path: Path) -> None:
    """Tokens remain valid after a restart."""
    data_dir = DataDir(tmp_path)
    data_dir.create_keyring(keyring.generate())
    content = data_dir.keyring.read_bytes()
    data_dir.create_keyring(keyring.generate())
    assert content == data_dir.keyring.read_bytes()


def test_unusable_folder_is_named(tmp_path: Path) -> None:
    """The error names the variable to set."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(LocalError, match="choose another folder with VALENCE_HOME"),
        DataDir(tmp_path / "file/home").lock(),
    ):
        pass
