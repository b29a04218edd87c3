"""The web application of a service: its middleware in one order, its routers and error handlers.

A request meets, in this order: the client address from trusted proxy headers, the request log,
allowed hosts, CORS, the error boundary, the check for encoded slashes, the router, the strict body,
the handler.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, FastAPI
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
from valence_common.settings import WebSettings
from valence_common.web import middleware, openapi
from valence_common.web.state import Resources, provide

API = "/api/v1"

Background = Callable[[], contextlib.AbstractAsyncContextManager[None]]


def create_app(
    resources: Resources,
    *,
    title: str,
    description: str,
    routers: Sequence[APIRouter],
    background: Background | None = None,
) -> FastAPI:
    """Compose one service over its resources.

    `background` runs alongside the requests: it is entered before the process may become
    ready, and left after the last request, while the resources are still open.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as exits:
            exits.push_async_callback(resources.close)
            if background is not None:
                await exits.enter_async_context(background())
            tasks = [
                asyncio.create_task(resources.revocations.poll_forever()),
                asyncio.create_task(resources.become_ready()),
            ]
            try:
                yield
            finally:
                resources.health.ready = False
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
        middleware=_middleware(resources.settings, resources.metrics),
        exception_handlers={
            DomainError: on_domain_error,
            HTTPException: on_http_error,
            RequestValidationError: on_validation_error,
        },
    )
    app.state.resources = resources
    for router in routers:
        app.include_router(router)
    app.router.default = _not_found(app.router.default)
    openapi.install(app, api_keys=resources.api_keys is not None)
    return app


def _middleware(settings: WebSettings, metrics: HttpMetrics) -> list[Middleware]:
    """Return the middleware from the outside in, without those that the settings leave unused."""
    proxies = [str(network) for network in settings.trusted_proxies]
    hosts, origins = settings.allowed_hosts, settings.cors_origins
    return [
        Middleware(ProxyHeadersMiddleware, trusted_hosts=proxies),
        Middleware(middleware.RequestLog, metrics=metrics),
        *([Middleware(middleware.TrustedHosts, allowed=hosts)] if hosts else []),
        # Outside the error boundary, so that a page can read its responses too.
        *([Middleware(middleware.CORS, allowed=origins)] if origins else []),
        Middleware(middleware.ErrorBoundary),
        Middleware(middleware.RejectEncodedSlash),
    ]


def _not_found(default: ASGIApp) -> ASGIApp:
    """Return the application for unknown paths; Starlette's rejects a WebSocket without a body."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await problem(HTTPConnection(scope), 404, "Not Found")(scope, receive, send)
        else:
            await default(scope, receive, send)

    return answer


DatabaseDep = Annotated[Database, provide(Resources, lambda resources: resources.database)]
KeyringDep = Annotated[Keyring, provide(Resources, lambda resources: resources.keyring)]
HealthDep = Annotated[Health, provide(Resources, lambda resources: resources.health)]
