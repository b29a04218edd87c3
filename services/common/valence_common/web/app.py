"""What makes a service's web application: its parts, its one middleware order, its problems.

In the order a request meets them: the proxies' word on its address, the guards (observation, hosts,
origins, the last resort for errors, plain paths), the router, strict bodies, the handler.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from valence_common import __version__
from valence_common.db import Database
from valence_common.health import Health
from valence_common.keyring import Keyring
from valence_common.metrics import HttpMetrics
from valence_common.problems import (
    DomainError,
    on_domain_error,
    on_http_error,
    on_validation_error,
    problem,
)
from valence_common.redis_client import RedisClient
from valence_common.revocations import Revocations
from valence_common.settings import WebSettings
from valence_common.web import middleware, openapi

API = "/api/v1"
READY_SECONDS = 0.1


@dataclass(frozen=True)
class Resources:
    """What a web service is made of; opened at once, since each part connects when first used."""

    database: Database
    cache: RedisClient
    keyring: Keyring
    revocations: Revocations
    health: Health
    metrics: HttpMetrics

    @classmethod
    def open(cls, settings: WebSettings) -> "Resources":
        """Make the parts; raises `KeyringError` for keys that must not be used."""
        keyring = Keyring(settings.jwt_keyring_file)
        database = Database(
            settings.database_url,
            pool_size=settings.database_pool_size,
            timeout=settings.database_timeout_seconds,
        )
        cache = RedisClient(settings.redis_url, timeout=settings.redis_timeout_seconds)
        revocations = Revocations(settings.database_url)
        health = Health({"postgres": database.ping, "redis": cache.ping})
        metrics = HttpMetrics()
        metrics.revocations_age.set_function(lambda: revocations.age)
        return cls(database, cache, keyring, revocations, health, metrics)

    async def become_ready(self) -> None:
        """Wait until Postgres has answered, and has told which credentials are revoked."""
        while not self.revocations.loaded:
            await asyncio.sleep(READY_SECONDS)
        await self.health.become_ready()

    async def close(self) -> None:
        """Close what `open` opened, in reverse."""
        await self.cache.close()
        await asyncio.to_thread(self.revocations.close)
        await asyncio.to_thread(self.database.close)


Running = Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]


def create_app(
    *,
    title: str,
    description: str,
    settings: WebSettings,
    routers: Sequence[APIRouter],
    background: Running | None = None,
) -> FastAPI:
    """Compose one service.

    `running` is what the service does beside its requests: entered before the process may become
    ready, and left after the last request, while the parts still work.
    """
    parts = Resources.open(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as exits:
            exits.push_async_callback(parts.close)
            if background is not None:
                await exits.enter_async_context(background(app))
            tasks = [
                asyncio.create_task(parts.revocations.poll_forever()),
                asyncio.create_task(parts.become_ready()),
            ]
            try:
                yield
            finally:
                parts.health.ready = False
                for task in tasks:
                    task.cancel()

    app = FastAPI(
        title=title,
        description=description,
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=_middleware(settings, parts.metrics),
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
    app.state.message_bytes = 0  # of a WebSocket, in a service that speaks it
    app.state.stopping = asyncio.Event()  # set with the signal: who streams ends now
    app.state.health = parts.health
    app.state.metrics = parts.metrics
    for router in routers:
        app.include_router(router)
    app.router.default = _not_found(app.router.default)
    openapi.install(app)
    return app


def _middleware(settings: WebSettings, metrics: HttpMetrics) -> list[Middleware]:
    """From the outside in; what nobody asked for is not there."""
    proxies = [str(network) for network in settings.trusted_proxies]
    hosts, origins = settings.allowed_hosts, settings.cors_origins
    return [
        Middleware(ProxyHeadersMiddleware, trusted_hosts=proxies),
        Middleware(middleware.RequestLog, metrics=metrics),
        *([Middleware(middleware.TrustedHosts, allowed=hosts)] if hosts else []),
        # Outside the last resort, so that a page can read that answer as well.
        *([Middleware(middleware.CORS, allowed=origins)] if origins else []),
        Middleware(middleware.ErrorBoundary),
        Middleware(middleware.RejectEncodedSlash),
    ]


def _not_found(of_library: ASGIApp) -> ASGIApp:
    """What answers where no route is; the library refuses a WebSocket there without a word."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await problem(HTTPConnection(scope), 404, "Not Found")(scope, receive, send)
        else:
            await of_library(scope, receive, send)

    return answer


def from_state(name: str) -> Any:
    """The dependency that hands a handler one of the application's parts."""

    def get(connection: HTTPConnection) -> Any:
        return getattr(connection.app.state, name)

    return Depends(get)


DatabaseDep = Annotated[Database, from_state("database")]
KeyringDep = Annotated[Keyring, from_state("keyring")]
HealthDep = Annotated[Health, from_state("health")]
