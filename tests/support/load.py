"""Many requests at once, each timed."""

import asyncio
import time
from collections.abc import Callable, Sequence
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
