"""`valence keyring`: keys rotate in files and Secrets, and no output shows a key."""

import base64
import json
import os
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support import required
from support.keyring_command import SECRET, Cluster, KeyringFile, fail, run
from valence.keyring_stores import FileStore, SecretStore, StoreError
from valence_common import keyring


@pytest.fixture
def file(tmp_path: Path) -> KeyringFile:
    """A new keyring file."""
    file = KeyringFile(tmp_path / "keyring.json")
    file.succeed("new")
    return file


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A cluster without a Secret yet."""
    return Cluster(tmp_path)


def _secrets(content: bytes) -> list[str]:
    return [entry["key"] for entry in json.loads(content)["keys"]]


def _states(content: bytes) -> list[str]:
    def state(key: keyring.KeyInfo) -> str:
        return "signs" if key.active else "waits" if key.waiting else "ends"

    return [state(key) for key in keyring.list_keys(content)]


def test_new_makes_a_private_file_once(tmp_path: Path) -> None:
    """Mode 0600, one key, and an existing file is not overwritten."""
    path = tmp_path / "keyring.json"
    file = KeyringFile(path)
    assert f"{path}: created, with one signing key.\n" == file.succeed("new")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    before = path.read_bytes()
    assert ["signs"] == _states(before)
    assert f"{path} exists already and is not overwritten." == file.fail("new")
    assert before == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_steps_one_by_one(file: KeyringFile) -> None:
    """Add, activate, drop; the file stays private and no key is printed."""
    [old] = keyring.list_keys(file.path.read_bytes())
    output = file.succeed("add")
    assert "waits to be activated" in output
    assert "Activate it once every replica has read it, in 2 s." in output
    assert ["signs", "waits"] == _states(file.path.read_bytes())
    output += file.succeed("activate")
    assert f"{old.kid}  verifies until 20" in output
    assert ["ends", "signs"] == _states(file.path.read_bytes())
    output += file.succeed("drop")
    assert ["ends", "signs"] == _states(file.path.read_bytes())
    output += file.succeed("activate", "--kid", old.kid)
    assert ["signs", "ends"] == _states(file.path.read_bytes())
    newer = keyring.list_keys(file.path.read_bytes())[1].kid
    seen = _secrets(file.path.read_bytes())
    output += file.succeed("drop", "--kid", newer)
    assert "are rejected from now on" in output
    assert [old.kid] == [key.kid for key in keyring.list_keys(file.path.read_bytes())]
    output += file.succeed("show")
    assert output.endswith(f"{old.kid}  signs\n")
    assert 0o600 == stat.S_IMODE(file.path.stat().st_mode)
    assert not any(secret in output for secret in seen)


def test_drop_removes_expired_keys(file: KeyringFile) -> None:
    """Expired keys go, the signing key stays."""
    long_ago = datetime.now(UTC) - timedelta(days=1)
    file.path.write_bytes(keyring.activate(keyring.add(file.path.read_bytes()), long_ago))
    new = keyring.list_keys(file.path.read_bytes())[1].kid
    assert f"{new}  signs\n" == file.succeed("drop")


def test_rotate_waits_between_its_steps(file: KeyringFile) -> None:
    """The new key signs only after every process had time to read it."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "valence", "keyring", "--file", file.path, "rotate"],
        stdout=subprocess.PIPE,
        text=True,
    )
    seen = {tuple(_states(file.path.read_bytes()))}
    while process.poll() is None:
        seen.add(tuple(_states(file.path.read_bytes())))
    assert 0 == process.returncode
    assert time.monotonic() - started >= FileStore.propagation_seconds
    assert {("signs",), ("signs", "waits"), ("ends", "signs")} == seen | {
        tuple(_states(file.path.read_bytes()))
    }


def test_interrupted_rotation_continues(file: KeyringFile) -> None:
    """A key that already waits is the one that is activated."""
    file.succeed("add")
    waiting = keyring.list_keys(file.path.read_bytes())[1].kid
    output = file.succeed("rotate", "--wait", "0")
    assert f"{waiting}  signs\n" in output
    assert ["ends", "signs"] == _states(file.path.read_bytes())


def test_errors_are_one_sentence(file: KeyringFile, tmp_path: Path) -> None:
    """They name the file and the rule, and nothing is written."""
    before = file.path.read_bytes()
    kid = keyring.list_keys(before)[0].kid
    missing = KeyringFile(tmp_path / "missing.json")
    weak = KeyringFile(tmp_path / "weak.json")
    weak.path.write_text('{"active": "a", "keys": [{"kid": "a", "key": "c2hvcnQ"}]}')
    nowhere = KeyringFile(tmp_path / "none" / "keyring.json")
    no_such_file = "No such file or directory."
    assert f"{file.path}: no key is waiting to be activated: add one first." == file.fail(
        "activate"
    )
    signing = f"{file.path}: key {kid} is active: activate another one before dropping it."
    assert signing == file.fail("drop", "--kid", kid)
    assert f"{missing.path} cannot be read: {no_such_file}" == missing.fail("show")
    assert f"{weak.path}: key a is weak, it needs 32 random bytes." == weak.fail("add")
    assert f"{nowhere.path} cannot be written: {no_such_file}" == nowhere.fail("new")
    assert before == file.path.read_bytes()
    assert {file.path, weak.path} == set(tmp_path.iterdir())


@pytest.mark.parametrize("location", [(), ("--file", "x", "--secret", "y")])
def test_keyring_is_a_file_or_a_secret(location: tuple[str, ...]) -> None:
    """Neither and both are errors."""
    sentence = "Name the keyring with either --file or --secret, before the command."
    assert sentence == fail(location, "show")


def test_help_needs_no_keyring() -> None:
    """`--help` of a command works without the options before it."""
    result = run((), "rotate", "--help")
    assert 0 == result.exit_code
    assert "--wait" in result.stdout


def test_a_link_stays_a_link(file: KeyringFile, tmp_path: Path) -> None:
    """The target changes, which the services read through the link."""
    link = tmp_path / "link.json"
    link.symlink_to(file.path)
    KeyringFile(link).succeed("add")
    assert link.is_symlink()
    assert ["signs", "waits"] == _states(file.path.read_bytes())


def test_concurrent_change_of_a_file_is_kept(file: KeyringFile, tmp_path: Path) -> None:
    """Two concurrent rotations do not undo each other."""
    store = FileStore(file.path)
    store.read()
    other = keyring.add(file.path.read_bytes())
    file.path.write_bytes(other)
    with pytest.raises(StoreError, match="was changed by someone else in the meantime"):
        store.replace(keyring.generate())
    assert other == file.path.read_bytes()
    assert [file.path] == list(tmp_path.iterdir())


def test_the_files_owner_stays(file: KeyringFile) -> None:
    """Root can rotate the keys of a service that runs as another user."""
    required.root()
    os.chown(file.path, 10001, 10001)
    file.succeed("add")
    status = file.path.stat()
    assert (10001, 10001, 0o600) == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def test_a_secret_is_rotated(cluster: Cluster) -> None:
    """The same steps through kubectl; its other entries and labels stay."""
    assert "Secret valence-keyring: created, with one signing key.\n" == cluster.succeed("new")
    store = cluster.folder / "secret.json"
    secret = json.loads(store.read_text())
    secret["metadata"]["labels"] = {"a": "b"}
    secret["data"]["other"] = "b3RoZXI="
    store.write_text(json.dumps(secret))
    output = cluster.succeed("show")
    output += cluster.succeed("add")
    assert "in 120 s" in output
    output += cluster.succeed("rotate", "--wait", "0")
    content = cluster.keyring()
    assert ["ends", "signs"] == _states(content)
    old = keyring.list_keys(content)[0].kid
    output += cluster.succeed("drop", "--kid", old)
    assert ["signs"] == _states(cluster.keyring())
    after = json.loads(store.read_text())
    assert ({"a": "b"}, "b3RoZXI=") == (after["metadata"]["labels"], after["data"]["other"])
    on_command_lines = (cluster.folder / "argv").read_text()
    for key in _secrets(content):
        for shown in (key, base64.b64encode(key.encode()).decode()):
            assert shown not in output
            assert shown not in on_command_lines


def test_concurrent_change_of_a_secret_is_kept(cluster: Cluster) -> None:
    """The API server compares the resource version."""
    cluster.succeed("new")
    before = cluster.keyring()
    (cluster.folder / "meddle").touch()
    sentence = "Secret valence-keyring was changed by someone else in the meantime"
    assert cluster.fail("add").startswith(sentence)
    assert before == cluster.keyring()


def test_errors_of_kubectl_are_one_sentence(cluster: Cluster) -> None:
    """Missing, existing, forbidden, unreachable; the Secret that was sent is not quoted."""
    name = "Secret valence-keyring"
    assert f"{name} does not exist in this namespace." == cluster.fail("add")
    cluster.succeed("new")
    assert f"{name} exists already and is not overwritten." == cluster.fail("new")
    no_entry = cluster.fail("show", options=("--key", "other.json"))
    assert f"{name} has no entry other.json." == no_entry
    (cluster.folder / "forbidden").touch()
    assert f"kubectl could not write {name} (Forbidden)." == cluster.fail("add")
    (cluster.folder / "unreadable").touch()
    sentence = f"kubectl could not read {name}: "
    output = cluster.fail("show")
    assert f"{sentence}Error from server (Forbidden): you may not read." == output
    (cluster.folder / "down").touch()
    assert f"{sentence}The connection to the server 127.0.0.1:1 was refused." == (
        cluster.fail("show")
    )


def test_without_kubectl(tmp_path: Path) -> None:
    """The error says that kubectl is missing."""
    sentence = "kubectl is not installed; Secrets need it."
    assert sentence == fail(SECRET, "show", PATH=str(tmp_path))


def test_no_entry_at_all(cluster: Cluster) -> None:
    """A Secret without data, or with invalid data, has no keyring."""
    for data in (None, {}, {"keyring.json": "%%%"}):
        secret = {"metadata": {"name": "valence-keyring", "resourceVersion": "1"}, "data": data}
        (cluster.folder / "secret.json").write_text(json.dumps(secret))
        assert "Secret valence-keyring has no entry keyring.json." == cluster.fail("show")
    assert "Secret x" == str(SecretStore("x", namespace=None, key="y"))


WITHOUT_EXTRA = """
import sys
for name in ("valence_auth", "alembic", "psutil"):
    sys.modules[name] = None
sys.argv = ["valence", *sys.argv[1:]]
from valence.__main__ import main
main()
"""


def _run_without_extra(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_EXTRA, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_keyring_needs_no_extra(tmp_path: Path) -> None:
    """The base installation has help and the keyring commands."""
    assert 0 == _run_without_extra("--help").returncode
    process = _run_without_extra("keyring", "--file", tmp_path / "keyring.json", "new")
    assert (0, "") == (process.returncode, process.stderr)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["admin", "create", "--username", "ada"], "valence admin"),
        (["local"], "valence local"),
    ],
)
def test_command_names_the_extra_that_it_needs(command: list[str], name: str) -> None:
    """Without the services and servers, one sentence names the extra."""
    process = _run_without_extra(*command)
    assert 1 == process.returncode
    assert process.stderr.startswith(f"{name} needs the extra valence[local] (")
