"""Health: the routes of the internal port, and the checks behind them.

`/livez` reports that the event loop runs, and that nothing else in the process is stuck. `/readyz`
reports that this process has been able to do its work once. It stays ready when a shared dependency
fails, since that would remove every pod at once. `/metrics` checks the dependencies at each scrape.
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
CACHE_SECONDS = 0.5


class Health:
    """The health of one process: the checks of its dependencies, and whether it is ready."""

    def __init__(self, checks: Mapping[str, Check]):
        """`checks` maps each dependency to its check; `postgres` is required for readiness."""
        self.checks = checks
        self.ready = False
        self._checked_at = float("-inf")
        self._results: asyncio.Future[dict[str, bool]] | None = None

    async def check(self) -> dict[str, bool]:
        """Return whether each dependency answers, cached for half a second."""
        now = time.monotonic()
        if self._results is None or now - self._checked_at > CACHE_SECONDS:
            self._checked_at = now
            self._results = asyncio.ensure_future(self._run_checks())
        return dict(await asyncio.shield(self._results))

    async def _run_checks(self) -> dict[str, bool]:
        results = await asyncio.gather(*(_with_timeout(check) for check in self.checks.values()))
        return dict(zip(self.checks, results, strict=True))

    async def become_ready(self) -> None:
        """Wait until Postgres has answered once, then stay ready."""
        while not await _with_timeout(self.checks["postgres"]):
            await asyncio.sleep(RETRY_SECONDS)
        self.ready = True


async def _with_timeout(check: Check) -> bool:
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
    """Return the application of the internal port, which no ingress exposes.

    `stuck` names the part of the process that a restart would repair, or is None.
    """

    async def livez(_: Request) -> Response:
        part = stuck()
        return PlainTextResponse("ok") if part is None else PlainTextResponse(part, 503)

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
