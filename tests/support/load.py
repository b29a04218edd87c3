"""Many requests at once, each timed; and a watch on the probes meanwhile."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import httpx

from support.stack import Service


class Timed(NamedTuple):
    """One answer and the seconds that it took; status 0 for none."""

    status: int
    seconds: float
    headers: httpx.Headers

    def is_unavailable(self) -> bool:
        """A 503 as it should be."""
        return self.status == 503 and "retry-after" in self.headers


def at_once(requests: Sequence[httpx.Request]) -> list[Timed]:
    """Send them all together, each on a connection of its own."""

    async def send(client: httpx.AsyncClient, request: httpx.Request) -> Timed:
        started = time.monotonic()
        try:
            answer = await client.send(request)
        except httpx.TransportError:
            return Timed(0, time.monotonic() - started, httpx.Headers())
        return Timed(answer.status_code, time.monotonic() - started, answer.headers)

    async def send_all() -> list[Timed]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=30, limits=limits, trust_env=False) as client:
            return await asyncio.gather(*(send(client, request) for request in requests))

    return asyncio.run(send_all())


@contextlib.contextmanager
def probed(services: Sequence[Service], *, limit: float = 1.0) -> Iterator[list[float]]:
    """Ask each service's /livez again and again: always 200, and within a second."""
    stop = threading.Event()
    slow: list[str] = []
    times: list[float] = []

    def probe() -> None:
        with httpx.Client(timeout=10, trust_env=False) as client:
            while not stop.wait(0.05):
                for service in services:
                    started = time.monotonic()
                    status = client.get(f"{service.internal_url}/livez").status_code
                    times.append(time.monotonic() - started)
                    if status != 200 or times[-1] > limit:
                        slow.append(f"{service.name}: {status} after {times[-1]:.2f} s")

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join()
    assert [] == slow
    assert times


def timed(call: Callable[[], httpx.Response]) -> Timed:
    """One request, timed."""
    started = time.monotonic()
    answer = call()
    return Timed(answer.status_code, time.monotonic() - started, answer.headers)


def dependency_up(service: Service, name: str) -> bool:
    """What a service's metrics say of a dependency now."""
    metrics = httpx.get(f"{service.internal_url}/metrics", timeout=10).text.splitlines()
    [line] = [m for m in metrics if m.startswith(f'valence_dependency_up{{dependency="{name}"}}')]
    return float(line.split()[-1]) == 1
