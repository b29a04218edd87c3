"""Liveness probes in the background of a test, judged in the test itself.

A process of its own asks, so that a test's own work delays no question. Of the time of an answer
it leaves out what a thread waited for a CPU (Linux says so): a busy machine is no slow service.
"""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

PATIENCE_SECONDS = 30
ENDING_SECONDS = 5
"""How long a process may live on after it has closed its port."""


class LivenessProbe:
    """Asks each service's /livez again and again.

    What is wrong is written down, and `judge` raises it. A service that ends is asked no more.
    """

    def __init__(self, services: Sequence[Any], *, limit: float, interval: float = 0.05):
        """`limit` and `interval` are in seconds."""
        self.times: list[float] = []
        self._limit, self._interval = limit, interval
        self._complaints: list[str] = []
        self._silent = {service.pid: service.name for service in services}
        self._names = dict(self._silent)
        self._addresses = [f"{service.pid}={service.internal_url}" for service in services]

    def start(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__, str(self._interval), *self._addresses],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is the test's
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def stop(self) -> None:
        self._process.stdin.close()
        self._reader.join()
        self._process.wait()
        self._process.stdout.close()

    def judge(self) -> None:
        """Every answer was 200 and within the limit, and each service gave one."""
        self.stop()
        assert not self._complaints, f"U4: /livez of {self._complaints}"
        assert not self._silent, f"U4: /livez was never answered by {self._silent}"
        assert self._process.returncode == 0

    def _read(self) -> None:
        for line in self._process.stdout:
            pid, answer, seconds = json.loads(line)
            self._silent.pop(pid, None)
            self.times.append(seconds)
            if answer != "200" or seconds > self._limit:
                self._complaints.append(f"{self._names[pid]}: {answer} after {seconds:.2f} s")


@contextlib.contextmanager
def probed(services: Sequence[Any], *, limit: float = 1.0) -> Iterator[list[float]]:
    """Ask each service's /livez meanwhile: always 200, and within a second. Yields the times."""
    probes = LivenessProbe(services, limit=limit).start()
    try:
        yield probes.times
    finally:
        probes.stop()
    probes.judge()


def _ask_again(pid: int, address: str, interval: float, stopped: threading.Event) -> None:
    """Ask one service, and print each answer, until told to stop or until the service ends."""
    while True:
        before, began = _starved(pid), time.monotonic()
        answer = _ask(address)
        seconds = time.monotonic() - began
        if not answer.isdigit() and not stopped.is_set() and _ends(pid):
            return
        seconds = max(0.0, seconds - (_starved(pid) - before))
        print(json.dumps((pid, answer, seconds)), flush=True)
        if stopped.wait(interval):
            return


def _ask(address: str) -> str:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/livez")
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()


def _starved(pid: int) -> float:
    """Seconds that this thread and the service's main thread have waited for a CPU."""
    nanoseconds = 0
    for task in (f"self/task/{threading.get_native_id()}", f"{pid}/task/{pid}"):
        with contextlib.suppress(OSError):
            nanoseconds += int(Path(f"/proc/{task}/schedstat").read_text().split()[1])
    return nanoseconds / 1e9


def _ends(pid: int) -> bool:
    """Whether the service has ended, or does so soon."""
    deadline = time.monotonic() + ENDING_SECONDS
    while not _has_ended(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except ProcessLookupError:
        return True
    except OSError:  # its folder has just gone, or this is no Linux
        return Path("/proc/self/stat").exists()
    return state in "ZX"


def main() -> None:
    """Ask until standard input ends."""
    stopped = threading.Event()
    interval = float(sys.argv[1])
    threads = []
    for argument in sys.argv[2:]:
        pid, _, url = argument.partition("=")
        address = url.removeprefix("http://")
        arguments = (int(pid), address, interval, stopped)
        threads.append(threading.Thread(target=_ask_again, args=arguments))
        threads[-1].start()
    sys.stdin.read()
    stopped.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
