"""The ingress of the local installation: sends each path to the service that owns it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send


class Router:
    """An ASGI app: paths at or below one of `prefixes` go to `auth`, all others to `inference`."""

    def __init__(self, auth: ASGIApp, inference: ASGIApp, prefixes: tuple[str, ...]) -> None:
        self._auth, self._inference = auth, inference
        self._exact = frozenset(prefixes)
        self._below = tuple(f"{prefix}/" for prefix in prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an http or websocket scope on, as it is."""
        path = scope["path"]
        to_auth = path in self._exact or path.startswith(self._below)
        await (self._auth if to_auth else self._inference)(scope, receive, send)


@asynccontextmanager
async def lifespans(*apps: Starlette) -> AsyncIterator[None]:
    """Run the start-up of every app in order, and their shut-downs in reverse."""
    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(app.router.lifespan_context(app))
        yield
