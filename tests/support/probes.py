"""Liveness probes in the background of a test, judged in the test itself."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Self

import httpx

from support.stack import Service


class LivenessProbe:
    """Asks each service's /livez again and again, each on a connection of its own.

    A thread that raises fails no test: it writes its complaints down, and `judge` raises them.
    """

    def __init__(self, services: Sequence[Service], *, limit: float, interval: float = 0.05):
        """`limit` and `interval` are in seconds."""
        self.times: list[float] = []
        self._limit, self._interval = limit, interval
        self._complaints: list[str] = []
        self._answered = dict.fromkeys((service.name, service.pid) for service in services)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._probe, args=(s,)) for s in services]

    def start(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def judge(self) -> None:
        """Every answer was 200 and within the limit, and each service gave one."""
        self.stop()
        assert not self._complaints, f"U4: /livez of {self._complaints}"
        silent = [service for service, answered in self._answered.items() if not answered]
        assert not silent, f"U4: /livez was never answered by {silent}"

    def _probe(self, service: Service) -> None:
        with httpx.Client(trust_env=False, timeout=10 + self._limit) as client:
            while not (complaint := self._ask(client, service)):
                if self._stopped.wait(self._interval):
                    return
        self._complaints.append(f"{service.name}: {complaint}")

    def _ask(self, client: httpx.Client, service: Service) -> str:
        started = time.monotonic()
        try:
            status = client.get(f"{service.internal_url}/livez").status_code
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must hear of it
            # A process that the test has ended is no complaint.
            return "" if service.process.poll() is not None else repr(error)
        seconds = time.monotonic() - started
        self.times.append(seconds)
        self._answered[service.name, service.pid] = True
        if status == 200 and seconds <= self._limit:
            return ""
        return f"{status} after {seconds:.2f} s"


@contextlib.contextmanager
def probed(services: Sequence[Service], *, limit: float = 1.0) -> Iterator[list[float]]:
    """Ask each service's /livez meanwhile: always 200, and within a second. Yields the times."""
    probes = LivenessProbe(services, limit=limit).start()
    try:
        yield probes.times
    finally:
        probes.stop()
    probes.judge()
