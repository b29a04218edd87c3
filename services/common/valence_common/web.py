"""What makes a service's web application: its parts, its one middleware order, its problems.

In the order a request meets them: observation (request id, log line, metrics, last resort for
errors, security headers), plain paths, then the router, strict bodies (`bodies`), the handler.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from valence_common import __version__, openapi
from valence_common.cache import Cache
from valence_common.db import Database, new_id
from valence_common.health import Health
from valence_common.keyring import Keyring
from valence_common.log import describe
from valence_common.metrics import UNMATCHED, HttpMetrics
from valence_common.problems import (
    DomainError,
    Unavailable,
    on_domain_error,
    on_http_error,
    on_validation_error,
    problem,
)
from valence_common.revocations import Revocations
from valence_common.settings import WebSettings

API = "/api/v1"
READY_SECONDS = 0.1

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Parts:
    """What a web service is made of; opened at once, since each part connects when first used."""

    database: Database
    cache: Cache
    keyring: Keyring
    revocations: Revocations
    health: Health
    metrics: HttpMetrics

    @classmethod
    def open(cls, settings: WebSettings) -> "Parts":
        """Make the parts; raises `KeyringError` for keys that must not be used."""
        keyring = Keyring(settings.jwt_keyring_file)
        database = Database(
            settings.database_url,
            pool_size=settings.database_pool_size,
            timeout=settings.database_timeout_seconds,
        )
        cache = Cache(settings.redis_url, timeout=settings.redis_timeout_seconds)
        revocations = Revocations(settings.database_url)
        health = Health({"postgres": database.ping, "redis": cache.ping})
        metrics = HttpMetrics()
        metrics.revocations_age.set_function(lambda: revocations.age)
        return cls(database, cache, keyring, revocations, health, metrics)

    async def become_ready(self) -> None:
        """Wait until Postgres has answered, and has told which credentials are revoked."""
        while not self.revocations.known:
            await asyncio.sleep(READY_SECONDS)
        await self.health.become_ready()

    async def close(self) -> None:
        """Close what `open` opened, in reverse."""
        await self.cache.close()
        await asyncio.to_thread(self.revocations.close)
        await asyncio.to_thread(self.database.close)


Startup = Callable[[FastAPI], Awaitable[None]]


def create_app(
    *,
    title: str,
    description: str,
    settings: WebSettings,
    routers: Sequence[APIRouter],
    startup: Startup | None = None,
) -> FastAPI:
    """Compose one service; `startup` runs before the process may become ready."""
    parts = Parts.open(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            if startup is not None:
                await startup(app)
            tasks = [
                asyncio.create_task(parts.revocations.follow()),
                asyncio.create_task(parts.become_ready()),
            ]
            try:
                yield
            finally:
                parts.health.ready = False
                for task in tasks:
                    task.cancel()
        finally:
            await parts.close()

    app = FastAPI(
        title=title,
        description=description,
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(
                ProxyHeadersMiddleware, trusted_hosts=[str(n) for n in settings.trusted_proxies]
            ),
            Middleware(Observation, metrics=parts.metrics),
            Middleware(PlainPaths),
        ],
        exception_handlers={
            DomainError: on_domain_error,
            HTTPException: on_http_error,
            RequestValidationError: on_validation_error,
        },
    )
    app.state.settings = settings
    app.state.keyring = parts.keyring
    app.state.database = parts.database
    app.state.cache = parts.cache
    app.state.revocations = parts.revocations
    app.state.api_keys = None  # a service that takes API keys puts its verifier here
    app.state.meter = None  # and one whose use is limited, what counts it
    app.state.health = parts.health
    app.state.metrics = parts.metrics
    for router in routers:
        app.include_router(router)
    openapi.describe(app)
    return app


def state(name: str) -> Any:
    """The dependency that hands a handler one of the application's parts."""

    def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


DatabaseDep = Annotated[Database, state("database")]
KeyringDep = Annotated[Keyring, state("keyring")]
HealthDep = Annotated[Health, state("health")]


class Observation:
    """Gives each request an id, a log line and metrics; no error leaves it unhandled."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics):
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in (_SECURITY_HEADERS | scope["state"].get("headers", {})).items():
                    headers.setdefault(name, value)
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, send_observed)
        except ClientDisconnect:
            return  # nobody is left to answer
        except asyncio.CancelledError:
            # The drain is over, and its request may be tried elsewhere; uvicorn would say 500.
            if status == 0:
                late = Unavailable("drain")
                headers = late.headers | {"Connection": "close"}
                answer = problem(Request(scope), late.status, late.message, headers=headers)
                await answer(scope, receive, send_observed)
        except Exception as error:  # noqa: BLE001 - the last resort: whatever it is, answer it
            structlog.get_logger().error("unhandled", **describe(error))
            if status == 0:
                detail = "Something went wrong on our side; the request id helps us to find it"
                answer = problem(Request(scope), 500, detail)
                await answer(scope, receive, send_observed)
        finally:
            self.metrics.in_flight.dec()
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        # A client that went away before an answer counts as nginx counts it.
        status = status or 499
        self.metrics.observe(scope["method"], route, status, seconds)
        structlog.get_logger().info(
            "request",
            method=scope["method"][:16],
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
        )


class PlainPaths:
    """Knows no path that hides a slash: what a proxy reads in `%2F` may not be what we read."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and b"%2f" in scope.get("raw_path", b"").lower():
            await problem(Request(scope), 404, "Not Found")(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return given
    return str(new_id())
