"""Child processes that end with us: each has a session, a log, a death signal and a record.

The record (pid and start time of the child and of its owner) is for the case that the death signal
does not exist (macOS) or was not heard: the next start finds the leftover by it and stops it.
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, TypedDict

import psutil  # type: ignore[import-untyped]

from valence.local.errors import LocalError

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LAST_WAIT_S = 1.0  # for each signal after the first
_LEFTOVER_WAIT_S = 3.0
_LOG_LIMIT_BYTES = 8 * 1024 * 1024


class _Record(TypedDict):
    pid: int
    started: float
    owner: int
    owner_started: float


def die_with_parent(death_signal: int) -> Callable[[], None] | None:
    """What a child runs before its exec so that the kernel signals it when we are gone (Linux).

    The kernel ties this to the thread that forks: start children from a thread that stays.
    """
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # we died between the fork and the line above
            os._exit(1)

    return arm


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Python's signal handlers off to the end of the block.

    A handler that raises between a fork and the note of it would leave a child nobody knows of.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers only ever run in the main thread
        return
    held: set[int] = set()
    handlers = {
        stop: signal.signal(stop, lambda number, _: held.add(number))
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(signal.getsignal(stop))
    }
    try:
        yield
    finally:
        for stop, handler in handlers.items():
            signal.signal(stop, handler)
    for number in held:
        signal.raise_signal(number)


def find(pid: int, started: float, *, tolerance: float = 2.0) -> psutil.Process | None:
    """The process that has this pid and began at this time; None when the pid is free or reused."""
    try:
        process = psutil.Process(pid)
        # The kernel's boot time, from which start times are reckoned, moves a little with NTP.
        same = abs(process.create_time() - started) < tolerance
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def holds_pid(pid: int) -> bool:
    """Whether any process has this pid now."""
    return bool(psutil.pid_exists(pid))


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with open(new, "w", opener=lambda p, flags: os.open(p, flags | os.O_EXCL, 0o600)) as file:
        file.write(text)
    new.replace(path)


class Child:
    """One long-lived child process.

    `stop_signals` are tried in turn, and SIGKILL comes last; `death_signal` is what the kernel
    sends it when we are killed.
    """

    def __init__(
        self,
        name: str,
        *,
        record: Path,
        log: Path,
        stop_signals: Sequence[signal.Signals] = (signal.SIGTERM,),
        death_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name, self.log = name, log
        self._record, self._stop_signals = record, tuple(stop_signals)
        self._death_signal = death_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: signal.Signals | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The child's own process id (LocalError when it was not started)."""
        if self._process is None:
            raise LocalError(f"{self.name} is not running.")
        return self._process.pid

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Self:
        """Start it, after a leftover of a killed owner is gone; its output goes to the log."""
        self.clear_leftover()
        self._asked = None
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        with self.log.open("ab") as log, _uninterrupted():
            self._log_start = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own binaries
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,  # so Ctrl-C in the terminal reaches us alone
                preexec_fn=die_with_parent(self._death_signal),  # noqa: PLW1509 - one C call
            )
        me, child = psutil.Process(), psutil.Process(self._process.pid)
        content = _Record(
            pid=child.pid,
            started=child.create_time(),
            owner=me.pid,
            owner_started=me.create_time(),
        )
        write_private(self._record, json.dumps(content))
        return self

    def clear_leftover(self) -> None:
        """Stop what a killed owner left behind; LocalError when the owner is alive."""
        try:
            content: _Record = json.loads(self._record.read_text())
            process = find(content["pid"], content["started"])
            owned = find(content["owner"], content["owner_started"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # never started, or a record cut short
        if process is None:
            return
        if owned is not None:
            where = self._record.parent
            raise LocalError(f"{self.name} already runs on {where} (pid {process.pid}).")
        for step in (*self._stop_signals, signal.SIGKILL):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(step)
                process.send_signal(signal.SIGCONT)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(_LEFTOVER_WAIT_S)
                break
        self._end_group(process.pid)

    def wait_ready(
        self,
        answers: Callable[[], bool],
        *,
        respawn: Callable[[], None],
        passing: str,
        timeout: float,
    ) -> None:
        """Wait until it answers; when it ends with a `passing` message in its log, try again."""
        deadline = time.monotonic() + timeout
        while not answers():
            ended = self.poll() is not None
            if ended and re.search(passing, self.log_tail(), re.IGNORECASE) is None:
                raise self.failure("ended while starting")
            if time.monotonic() > deadline:
                raise self.failure(f"did not answer within {timeout:.0f} s")
            if ended:
                respawn()
            time.sleep(0.02)

    def failure(self, what: str) -> LocalError:
        """What it did, and the end of its log."""
        return LocalError(f"{self.name} {what}; the end of {self.log}:\n{self.log_tail()}")

    def poll(self) -> int | None:
        """The exit code once it has ended, None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self, timeout: float) -> None:
        """End it within about `timeout` seconds, at last by force; harmless when not running."""
        process, self._process = self._process, None
        if process is None:
            return
        patience = max(timeout - _LAST_WAIT_S * (len(self._stop_signals) - 1), _LAST_WAIT_S / 2)
        for step in (*self._stop_signals, signal.SIGKILL):
            if step is not self._asked:  # to some, a second one says: drop everything
                process.send_signal(step)
            process.send_signal(signal.SIGCONT)  # a stopped process hears nothing else
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                break
            patience = _LAST_WAIT_S
        self._end_group(process.pid)
        self._record.unlink(missing_ok=True)

    def ask_to_stop(self) -> None:
        """Send the first stop signal and return, so that several children can end side by side."""
        if self._process is not None and self._process.poll() is None:
            self._asked = self._stop_signals[0]
            self._process.send_signal(self._asked)

    def log_tail(self, lines: int = 12) -> str:
        """The last lines that this run of the child wrote."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    @staticmethod
    def _end_group(pid: int) -> None:
        """Kill what the child left in its own group (a pool process whose parent was killed)."""
        # The number cannot belong to strangers: a pid is not given out while a group still has it,
        # and this comes right after the leader's end.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
