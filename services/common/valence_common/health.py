"""Health: what the internal port answers, and the checks behind it.

`/livez` says that the event loop turns, and whatever else a process may get stuck at. `/readyz`
says that this process has once been able to do its work; it does not fall back when a shared
dependency fails, for that would take every pod away at once. `/metrics` asks the dependencies anew
at each scrape.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, Gauge
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

Check = Callable[[], Awaitable[bool]]

RETRY_SECONDS = 0.5
CHECK_SECONDS = 3.0
FRESH_SECONDS = 0.5


class Health:
    """The state of one process: its dependencies' checks, and whether it may get requests."""

    def __init__(self, checks: Mapping[str, Check], *, needed: tuple[str, ...] = ("postgres",)):
        self.checks = checks
        self.needed = needed
        self.ready = False
        self._asked_at = float("-inf")
        self._answer: asyncio.Future[dict[str, bool]] | None = None

    async def check(self) -> dict[str, bool]:
        """Whether each dependency answers, as of the last half second: anybody may ask often."""
        now = time.monotonic()
        if self._answer is None or now - self._asked_at > FRESH_SECONDS:
            self._asked_at = now
            self._answer = asyncio.ensure_future(self._ask())
        return dict(await asyncio.shield(self._answer))

    async def _ask(self) -> dict[str, bool]:
        answers = await asyncio.gather(*(_within(check) for check in self.checks.values()))
        return dict(zip(self.checks, answers, strict=True))

    async def become_ready(self) -> None:
        """Wait until what the process needs has answered once, then stay ready."""
        while not all(await asyncio.gather(*(_within(self.checks[name]) for name in self.needed))):
            await asyncio.sleep(RETRY_SECONDS)
        self.ready = True


async def _within(check: Check) -> bool:
    try:
        return await asyncio.wait_for(check(), CHECK_SECONDS)
    except TimeoutError:
        return False


def internal_app(
    health: Health,
    *,
    render: Callable[[], bytes],
    dependency_up: Gauge,
    stuck: Callable[[], str | None] = lambda: None,
) -> Starlette:
    """The application of the internal port, which no ingress reaches.

    `stuck` says what of the process a restart would mend, if anything.
    """

    async def livez(_: Request) -> Response:
        what = stuck()
        return PlainTextResponse("ok") if what is None else PlainTextResponse(what, 503)

    async def readyz(_: Request) -> Response:
        if health.ready:
            return PlainTextResponse("ready")
        return PlainTextResponse("not ready", 503, headers={"Retry-After": "1"})

    async def show_metrics(_: Request) -> Response:
        for name, up in (await health.check()).items():
            dependency_up.labels(name).set(up)
        return Response(render(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", show_metrics),
        ]
    )
