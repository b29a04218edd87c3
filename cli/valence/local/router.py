"""The ingress of the local installation: routes each path to its service."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send


class Router:
    """An ASGI app that routes paths at or below `prefixes` to `auth`, others to `inference`."""

    def __init__(self, auth: ASGIApp, inference: ASGIApp, prefixes: tuple[str, ...]) -> None:
        self._auth, self._inference = auth, inference
        self._exact = frozenset(prefixes)
        self._below = tuple(f"{prefix}/" for prefix in prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an unchanged http or websocket scope on."""
        path = scope["path"]
        to_auth = path in self._exact or path.startswith(self._below)
        await (self._auth if to_auth else self._inference)(scope, receive, send)


@asynccontextmanager
async def lifespans(*apps: Starlette) -> AsyncIterator[None]:
    """Start the apps in order, and shut them down in reverse order."""
    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(app.router.lifespan_context(app))
        yield
