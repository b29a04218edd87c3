"""Children end with us, whatever happens to them or to us."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from support.required import require
from support.waiting import until
from valence.local.errors import LocalError
from valence.local.processes import Child, find, write_private

SLEEP = "import time; print('up', flush=True); time.sleep(100)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(100)
"""
PARENT = """
import subprocess, sys, time
pool = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
print("pool", pool.pid, flush=True)
time.sleep(100)
"""


def make_child(folder: Path) -> Child:
    return Child("The child", record=folder / "child.json", log=folder / "child.log")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for_output(child: Child, text: str) -> str:
    return until(lambda: text in child.log_tail() and child.log_tail(), timeout=10, what=text)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_child_stops_when_asked(tmp_path: Path) -> None:
    """SIGTERM is enough for a child that listens, and the record goes with it."""
    child = make_child(tmp_path).start(python(SLEEP))
    wait_for_output(child, "up")
    pid = child.pid
    child.stop(5)
    assert gone(pid)
    assert not (tmp_path / "child.json").exists()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_child_that_does_not_listen_is_killed(tmp_path: Path, frozen: bool) -> None:
    """Also one that is stopped (SIGSTOP), within the time given and a second."""
    child = make_child(tmp_path).start(python(STUBBORN))
    wait_for_output(child, "up")
    pid = child.pid
    if frozen:
        os.kill(pid, signal.SIGSTOP)
    child.stop(0.3)
    assert gone(pid)


def test_what_a_child_started_goes_with_it(tmp_path: Path) -> None:
    """A worker's pool does not outlive the worker."""
    child = make_child(tmp_path).start(python(PARENT))
    pool = int(wait_for_output(child, "pool").split()[1])
    child.stop(5)
    until(lambda: gone(pool), timeout=5)


OWNER = """
import sys, time
from pathlib import Path
from valence.local.processes import Child
folder = Path(sys.argv[1])
child = Child("The child", record=folder / "child.json", log=folder / "child.log")
child.start([sys.executable, "-c", sys.argv[2]])
print(child.pid, flush=True)
time.sleep(100)
"""


def start_owner(folder: Path, code: str) -> tuple[subprocess.Popen[str], int]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, folder, code], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    return owner, int(owner.stdout.readline())


def test_a_child_dies_with_its_killed_owner(tmp_path: Path) -> None:
    """kill -9 of the owner leaves nothing."""
    require("linux", sys.platform == "linux", "the death signal is Linux's")
    owner, pid = start_owner(tmp_path, SLEEP)
    with owner:
        assert not gone(pid)
        owner.kill()
    until(lambda: gone(pid), timeout=5)


def test_a_signal_that_comes_with_the_start_loses_no_child(tmp_path: Path) -> None:
    """A handler that raises waits until the child is known, however early its signal was."""

    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = psutil.Process().children(recursive=True)
    handler = signal.signal(signal.SIGTERM, interrupt)
    child = make_child(tmp_path)
    try:
        for moment in range(40):
            late = threading.Timer(moment / 10_000, os.kill, (os.getpid(), signal.SIGTERM))
            with contextlib.suppress(Interrupted):
                late.start()
                child.start(["sleep", "100"])
                late.join()
            child.stop(5)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert set(before) == set(psutil.Process().children(recursive=True))


def test_the_next_start_ends_a_leftover(tmp_path: Path) -> None:
    """What did not hear the death signal is found by its record."""
    owner, pid = start_owner(tmp_path, STUBBORN)
    until(lambda: "up" in (tmp_path / "child.log").read_text(), timeout=10)
    with owner:
        owner.kill()
    assert not gone(pid)
    os.kill(pid, signal.SIGSTOP)
    child = make_child(tmp_path).start(python(SLEEP))
    assert gone(pid)
    child.stop(5)


def test_a_living_owner_keeps_its_child(tmp_path: Path) -> None:
    """Two owners of one record would stop each other's child."""
    owner, pid = start_owner(tmp_path, SLEEP)
    with owner:
        with pytest.raises(LocalError, match=f"already runs on {tmp_path} .pid {pid}"):
            make_child(tmp_path).start(python(SLEEP))
        assert not gone(pid)
        owner.kill()


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", '{"pid": 1}', None],
    ids=["empty", "cut", "list", "incomplete", "reused"],
)
def test_a_useless_record_harms_nobody(tmp_path: Path, record: str | None) -> None:
    """Least of all the process that has the recorded pid today."""
    bystander = subprocess.Popen(python(SLEEP), stdout=subprocess.DEVNULL)
    reused = {"pid": bystander.pid, "started": 1.0, "owner": 2, "owner_started": 1.0}
    (tmp_path / "child.json").write_text(json.dumps(reused) if record is None else record)
    make_child(tmp_path).start(python(SLEEP)).stop(5)
    with bystander:
        assert bystander.poll() is None
        bystander.kill()


def test_find_tells_a_reused_pid() -> None:
    """A pid alone names nobody."""
    me = psutil.Process()
    assert find(me.pid, me.create_time()) == me
    assert find(me.pid, me.create_time() - 60) is None


def test_private_files_are_private(tmp_path: Path) -> None:
    """Also when the file was there before with another mode."""
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert ("new", 0o600) == (path.read_text(), path.stat().st_mode & 0o777)
