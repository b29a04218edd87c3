"""Children end with their parent, however either of them ends."""

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
from valence.local.processes import Child, find_process, write_private

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


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_child_stops_on_its_stop_signal(tmp_path: Path) -> None:
    """SIGTERM ends a child that does not ignore it, and its record is removed."""
    child = make_child(tmp_path).start(python(SLEEP))
    wait_for_output(child, "up")
    pid = child.pid
    child.stop(5)
    assert ended(pid)
    assert not (tmp_path / "child.json").exists()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_child_that_ignores_the_signal_is_killed(tmp_path: Path, frozen: bool) -> None:
    """So is one that is frozen (SIGSTOP)."""
    child = make_child(tmp_path).start(python(STUBBORN))
    wait_for_output(child, "up")
    pid = child.pid
    if frozen:
        os.kill(pid, signal.SIGSTOP)
    child.stop(0.3)
    assert ended(pid)


def test_children_of_a_child_end_with_it(tmp_path: Path) -> None:
    """A worker's pool does not outlive the worker."""
    child = make_child(tmp_path).start(python(PARENT))
    pool = int(wait_for_output(child, "pool").split()[1])
    child.stop(5)
    until(lambda: ended(pool), timeout=5)


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
    """SIGKILL of the owner ends the child."""
    require("linux", sys.platform == "linux", "only Linux has the death signal")
    owner, pid = start_owner(tmp_path, SLEEP)
    with owner:
        assert not ended(pid)
        owner.kill()
    until(lambda: ended(pid), timeout=5)


def test_a_signal_during_the_start_leaks_no_child(tmp_path: Path) -> None:
    """A handler that raises is deferred until the child is recorded."""

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
    """A child that ignored the death signal is found by its record."""
    owner, pid = start_owner(tmp_path, STUBBORN)
    until(lambda: "up" in (tmp_path / "child.log").read_text(), timeout=10)
    with owner:
        owner.kill()
    assert not ended(pid)
    os.kill(pid, signal.SIGSTOP)
    child = make_child(tmp_path).start(python(SLEEP))
    assert ended(pid)
    child.stop(5)


def test_a_living_owner_keeps_its_child(tmp_path: Path) -> None:
    """Two owners of one record would stop each other's child."""
    owner, pid = start_owner(tmp_path, SLEEP)
    with owner:
        with pytest.raises(LocalError, match=f"already runs on {tmp_path} .pid {pid}"):
            make_child(tmp_path).start(python(SLEEP))
        assert not ended(pid)
        owner.kill()


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", '{"pid": 1}', None],
    ids=["empty", "cut", "list", "incomplete", "reused"],
)
def test_an_invalid_record_harms_no_process(tmp_path: Path, record: str | None) -> None:
    """Not even the process that has the recorded pid now."""
    bystander = subprocess.Popen(python(SLEEP), stdout=subprocess.DEVNULL)
    reused = {"pid": bystander.pid, "started": 1.0, "owner": 2, "owner_started": 1.0}
    (tmp_path / "child.json").write_text(json.dumps(reused) if record is None else record)
    make_child(tmp_path).start(python(SLEEP)).stop(5)
    with bystander:
        assert bystander.poll() is None
        bystander.kill()


def test_find_process_detects_a_reused_pid() -> None:
    """Pid and start time together identify a process."""
    me = psutil.Process()
    assert find_process(me.pid, me.create_time()) == me
    assert find_process(me.pid, me.create_time() - 60) is None


def test_private_files_are_private(tmp_path: Path) -> None:
    """So is a file that existed with another mode."""
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert ("new", 0o600) == (path.read_text(), path.stat().st_mode & 0o777)
