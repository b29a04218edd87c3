"""Child processes that end with this one: each has a session, a log, a death signal and a record.

The record holds the pid and start time of the child and its owner. Where the death signal does not
exist (macOS) or is ignored, the next start finds the leftover process by it and stops it.
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
_ESCALATION_TIMEOUT_S = 1.0  # for each signal after the first
_LEFTOVER_TIMEOUT_S = 3.0
_LOG_LIMIT_BYTES = 8 * 1024 * 1024


class _Record(TypedDict):
    pid: int
    started: float
    owner: int
    owner_started: float


def die_with_parent(death_signal: int) -> Callable[[], None] | None:
    """Return a `preexec_fn` that makes the kernel signal the child when the parent ends (Linux).

    The kernel ties this to the thread that forks: start children from a thread that keeps running.
    """
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # the parent ended between the fork and the line above
            os._exit(1)

    return arm


@contextlib.contextmanager
def _deferred_signals() -> Iterator[None]:
    """Defer Python's signal handlers to the end of the block.

    A handler that raises between a fork and the assignment of its result would leak the child.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only
        return
    deferred: set[int] = set()
    handlers = {
        stop: signal.signal(stop, lambda number, _: deferred.add(number))
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(signal.getsignal(stop))
    }
    try:
        yield
    finally:
        for stop, handler in handlers.items():
            signal.signal(stop, handler)
    for number in deferred:
        signal.raise_signal(number)


def find_process(pid: int, started: float, *, tolerance: float = 2.0) -> psutil.Process | None:
    """Return the process with this pid and start time; None if the pid is free or reused."""
    try:
        process = psutil.Process(pid)
        # Start times are relative to the boot time, which NTP shifts slightly.
        same = abs(process.create_time() - started) < tolerance
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def pid_exists(pid: int) -> bool:
    """Return whether any process has this pid."""
    return bool(psutil.pid_exists(pid))


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only its owner can read it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with open(new, "w", opener=lambda p, flags: os.open(p, flags | os.O_EXCL, 0o600)) as file:
        file.write(text)
    new.replace(path)


class Child:
    """A long-lived child process.

    `stop` sends `stop_signals` in turn and SIGKILL last. The kernel sends `death_signal` when this
    process is killed.
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
        self._requested_signal: signal.Signals | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The child's process ID; raises LocalError if it was not started."""
        if self._process is None:
            raise LocalError(f"{self.name} is not running.")
        return self._process.pid

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Self:
        """Stop a leftover of a killed owner, then start the child; its output goes to the log."""
        self.clear_leftover()
        self._requested_signal = None
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        with self.log.open("ab") as log, _deferred_signals():
            self._log_start = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own binaries
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,  # Ctrl-C in the terminal must not reach the child
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
        """Stop a child that a killed owner left behind; raise LocalError if the owner is alive."""
        try:
            content: _Record = json.loads(self._record.read_text())
            process = find_process(content["pid"], content["started"])
            owner = find_process(content["owner"], content["owner_started"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # never started, or a truncated record
        if process is None:
            return
        if owner is not None:
            folder = self._record.parent
            raise LocalError(f"{self.name} already runs on {folder} (pid {process.pid}).")
        for stop_signal in (*self._stop_signals, signal.SIGKILL):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(stop_signal)
                process.send_signal(signal.SIGCONT)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(_LEFTOVER_TIMEOUT_S)
                break
        self._kill_group(process.pid)

    def wait_ready(
        self,
        is_ready: Callable[[], bool],
        *,
        respawn: Callable[[], None],
        retry_on: str,
        timeout: float,
    ) -> None:
        """Wait until `is_ready`; call `respawn` if the child ends and its log matches `retry_on`.

        Raise LocalError if it ends otherwise, or after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not is_ready():
            ended = self.poll() is not None
            if ended and re.search(retry_on, self.log_tail(), re.IGNORECASE) is None:
                raise self.error("ended while starting")
            if time.monotonic() > deadline:
                raise self.error(f"did not answer within {timeout:.0f} s")
            if ended:
                respawn()
            time.sleep(0.02)

    def error(self, what: str) -> LocalError:
        """Return an error with the end of the child's log."""
        return LocalError(f"{self.name} {what}; the end of {self.log}:\n{self.log_tail()}")

    def poll(self) -> int | None:
        """Return the exit code, or None while the child runs or if it was not started."""
        return None if self._process is None else self._process.poll()

    def stop(self, timeout: float) -> None:
        """Stop the child within about `timeout` seconds, by SIGKILL at last."""
        process, self._process = self._process, None
        if process is None:
            return
        escalation = _ESCALATION_TIMEOUT_S * (len(self._stop_signals) - 1)
        step_timeout = max(timeout - escalation, _ESCALATION_TIMEOUT_S / 2)
        for stop_signal in (*self._stop_signals, signal.SIGKILL):
            # Some programs take a second signal as a request to drop all work.
            if stop_signal is not self._requested_signal:
                process.send_signal(stop_signal)
            process.send_signal(signal.SIGCONT)  # a stopped process receives no other signal
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(step_timeout)
                break
            step_timeout = _ESCALATION_TIMEOUT_S
        self._kill_group(process.pid)
        self._record.unlink(missing_ok=True)

    def request_stop(self) -> None:
        """Send the first stop signal and return, so that several children can stop in parallel."""
        if self._process is not None and self._process.poll() is None:
            self._requested_signal = self._stop_signals[0]
            self._process.send_signal(self._requested_signal)

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines that the child wrote since its start."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    @staticmethod
    def _kill_group(pid: int) -> None:
        """Kill the remaining processes of the child's group, such as those of a worker pool."""
        # The kernel does not reuse a pid that is still a group's ID, and the leader has just ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
