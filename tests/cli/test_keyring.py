"""`valence keys`: files and Secrets rotate, and nothing shows a key."""

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
from support.key_command import SECRET, Cluster, done, refused
from valence.keyring_stores import FileStore, SecretStore, StoreError
from valence_common import keyring


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A new keyring file."""
    path = tmp_path / "keyring.json"
    done("new", path)
    return path


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
    """0600, one key, and what is there already is not overwritten."""
    path = tmp_path / "keyring.json"
    assert f"{path}: made, with one key that signs.\n" == done("new", path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    before = path.read_bytes()
    assert ["signs"] == _states(before)
    assert f"{path} exists already: it is not overwritten." == refused("new", path)
    assert before == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_steps_one_by_one(file: Path) -> None:
    """Add, activate, drop; a private file after each, and never a key on the screen."""
    [old] = keyring.list_keys(file.read_bytes())
    said = done("add", file)
    assert "waits to be activated" in said
    assert "Activate it once every replica has read it, in 2 s." in said
    assert ["signs", "waits"] == _states(file.read_bytes())
    said += done("activate", file)
    assert f"{old.kid}  verifies until 20" in said
    assert ["ends", "signs"] == _states(file.read_bytes())
    said += done("drop", file)
    assert ["ends", "signs"] == _states(file.read_bytes())
    said += done("activate", file, "--kid", old.kid)
    assert ["signs", "ends"] == _states(file.read_bytes())
    newer = keyring.list_keys(file.read_bytes())[1].kid
    seen = _secrets(file.read_bytes())
    said += done("drop", file, "--kid", newer)
    assert "is refused from now on" in said
    assert [old.kid] == [key.kid for key in keyring.list_keys(file.read_bytes())]
    said += done("show", file)
    assert said.endswith(f"{old.kid}  signs\n")
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert not any(secret in said for secret in seen)


def test_drop_removes_what_has_had_its_end(file: Path) -> None:
    """The ends are the clock's business; the key that signs stays."""
    long_ago = datetime.now(UTC) - timedelta(days=1)
    file.write_bytes(keyring.activate(keyring.add(file.read_bytes()), long_ago))
    new = keyring.list_keys(file.read_bytes())[1].kid
    assert f"{new}  signs\n" == done("drop", file)


def test_rotate_waits_between_its_steps(file: Path) -> None:
    """First every process knows the key, then it signs."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "valence", "keys", "rotate", file], stdout=subprocess.PIPE, text=True
    )
    seen = {tuple(_states(file.read_bytes()))}
    while process.poll() is None:
        seen.add(tuple(_states(file.read_bytes())))
    assert 0 == process.returncode
    assert time.monotonic() - started >= FileStore.settles_in
    assert {("signs",), ("signs", "waits"), ("ends", "signs")} == seen | {
        tuple(_states(file.read_bytes()))
    }


def test_a_rotation_that_was_interrupted_goes_on(file: Path) -> None:
    """The key that waits already is the one that is activated."""
    done("add", file)
    waiting = keyring.list_keys(file.read_bytes())[1].kid
    said = done("rotate", file, "--wait", "0")
    assert f"{waiting}  signs\n" in said
    assert ["ends", "signs"] == _states(file.read_bytes())


def test_refusals_are_one_sentence(file: Path, tmp_path: Path) -> None:
    """They name the file and the rule, and nothing is written."""
    before = file.read_bytes()
    kid = keyring.list_keys(before)[0].kid
    missing, broken = tmp_path / "missing.json", tmp_path / "broken.json"
    broken.write_text('{"active": "a", "keys": [{"kid": "a", "key": "c2hvcnQ"}]}')
    no_key = f"{file}: no key is waiting to be activated: add one first."
    assert no_key == refused("activate", file)
    assert f"{file}: key {kid} is active: activate another one before dropping it." == refused(
        "drop", file, "--kid", kid
    )
    assert f"{missing} cannot be read: No such file or directory." == refused("show", missing)
    assert f"{broken}: key a is weak, it needs 32 random bytes." == refused("add", broken)
    folder = tmp_path / "none" / "keyring.json"
    assert f"{folder} cannot be written: No such file or directory." == refused("new", folder)
    neither = "Name either the keyring's file or its Secret (--secret)."
    assert neither == refused("show") == refused("show", file, "--secret", "x")
    assert before == file.read_bytes()
    assert {file, broken} == set(tmp_path.iterdir())


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    """What the services read through a link is what changes."""
    link = tmp_path / "link.json"
    link.symlink_to(file)
    done("add", link)
    assert link.is_symlink()
    assert ["signs", "waits"] == _states(file.read_bytes())


def test_a_file_that_changed_meanwhile_is_kept(file: Path, tmp_path: Path) -> None:
    """Two that rotate at once do not undo each other."""
    store = FileStore(file)
    store.read()
    other = keyring.add(file.read_bytes())
    file.write_bytes(other)
    with pytest.raises(StoreError, match="was changed by somebody else meanwhile"):
        store.replace(keyring.generate())
    assert other == file.read_bytes()
    assert [file] == list(tmp_path.iterdir())


def test_the_files_owner_stays(file: Path) -> None:
    """Root may rotate the keys of a service that runs as somebody else."""
    required.root()
    os.chown(file, 10001, 10001)
    done("add", file)
    status = file.stat()
    assert (10001, 10001, 0o600) == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def test_a_secret_is_rotated(cluster: Cluster) -> None:
    """The same steps through kubectl; its other entries and labels stay."""
    assert "Secret valence-keyring: made, with one key that signs.\n" == cluster.done("new")
    store = cluster.folder / "secret.json"
    secret = json.loads(store.read_text())
    secret["metadata"]["labels"] = {"a": "b"}
    secret["data"]["other"] = "b3RoZXI="
    store.write_text(json.dumps(secret))
    said = cluster.done("show")
    said += cluster.done("add")
    assert "in 120 s" in said
    said += cluster.done("rotate", "--wait", "0")
    content = cluster.keyring()
    assert ["ends", "signs"] == _states(content)
    old = keyring.list_keys(content)[0].kid
    said += cluster.done("drop", "--kid", old)
    assert ["signs"] == _states(cluster.keyring())
    after = json.loads(store.read_text())
    assert ({"a": "b"}, "b3RoZXI=") == (after["metadata"]["labels"], after["data"]["other"])
    on_command_lines = (cluster.folder / "argv").read_text()
    for key in _secrets(content):
        for shown in (key, base64.b64encode(key.encode()).decode()):
            assert shown not in said
            assert shown not in on_command_lines


def test_a_secret_that_changed_meanwhile_is_kept(cluster: Cluster) -> None:
    """The server compares the version that was read."""
    cluster.done("new")
    before = cluster.keyring()
    (cluster.folder / "meddle").touch()
    sentence = "Secret valence-keyring was changed by somebody else meanwhile"
    assert cluster.refused("add").startswith(sentence)
    assert before == cluster.keyring()


def test_what_kubectl_refuses_is_one_sentence(cluster: Cluster) -> None:
    """Missing, there already, forbidden, out of reach; what was sent is not quoted."""
    name = "Secret valence-keyring"
    assert f"{name} does not exist in this namespace." == cluster.refused("add")
    cluster.done("new")
    assert f"{name} exists already: it is not overwritten." == cluster.refused("new")
    wrong = cluster.refused("show", "--key", "other.json")
    assert f"{name} has no entry other.json." == wrong
    (cluster.folder / "forbidden").touch()
    assert f"kubectl could not write {name} (Forbidden)." == cluster.refused("add")
    (cluster.folder / "unreadable").touch()
    sentence = f"kubectl could not read {name}: "
    said = cluster.refused("show")
    assert f"{sentence}Error from server (Forbidden): you may not read." == said
    (cluster.folder / "down").touch()
    assert f"{sentence}The connection to the server 127.0.0.1:1 was refused." == (
        cluster.refused("show")
    )


def test_without_kubectl(tmp_path: Path) -> None:
    """One sentence says what is missing."""
    sentence = "kubectl is not installed: a Secret is reached through it."
    assert sentence == refused("show", *SECRET, PATH=str(tmp_path))


def test_no_entry_at_all(cluster: Cluster) -> None:
    """A Secret without data, or with data that is none, has no keyring."""
    for data in (None, {}, {"keyring.json": "%%%"}):
        secret = {"metadata": {"name": "valence-keyring", "resourceVersion": "1"}, "data": data}
        (cluster.folder / "secret.json").write_text(json.dumps(secret))
        assert "Secret valence-keyring has no entry keyring.json." == cluster.refused("show")
    assert "Secret x" == str(SecretStore("x", namespace=None, key="y"))


WITHOUT_EXTRA = """
import sys
for name in ("valence_common", "valence_auth", "psutil"):
    sys.modules[name] = None
sys.argv = ["valence", *sys.argv[1:]]
from valence.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["keys", "show", "x"], "valence keys"),
        (["admin", "create", "--username", "ada"], "valence admin"),
        (["local"], "valence local"),
    ],
)
def test_the_typed_client_alone_says_what_is_missing(command: list[str], name: str) -> None:
    """Without the extra the command still starts, helps, and names the extra."""
    shell = [sys.executable, "-c", WITHOUT_EXTRA]
    assert 0 == subprocess.run([*shell, "--help"], capture_output=True, check=False).returncode
    process = subprocess.run([*shell, *command], capture_output=True, text=True, check=False)
    assert 1 == process.returncode
    assert process.stderr.startswith(f"{name} needs the extra valence[local] (")
