"""The local router sends paths to the same services as the cluster's ingress."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

from valence.local.router import Router, lifespans
from valence_auth.app import PREFIXES


async def refuse(*_: Any) -> Any:
    raise AssertionError("not to be called")


def where(kind: str, path: str) -> str:
    reached: list[tuple[str, Any]] = []

    def app(name: str) -> Any:
        async def serve(scope: Any, receive: Any, send: Any) -> None:
            reached.append((name, scope))

        return serve

    scope = {"type": kind, "path": path}
    router = Router(app("auth"), app("inference"), PREFIXES)
    asyncio.run(router(scope, refuse, refuse))
    [(name, passed)] = reached
    assert passed is scope
    return name


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/api/v1/auth/login", "auth"),
        ("/api/v1/users/me", "auth"),
        ("/api/v1/api-keys", "auth"),
        ("/api/v1/api-keys/1", "auth"),
        ("/api/v1/admin", "auth"),
        ("/api/v1/authority", "inference"),
        ("/api/v1/sentiment/analyze", "inference"),
        ("/API/v1/auth", "inference"),
        ("/health", "inference"),
        ("/docs", "inference"),
        ("/", "inference"),
        ("", "inference"),
    ],
)
def test_paths_go_to_their_service(kind: str, path: str, service: str) -> None:
    """Prefixes match whole path segments; the scope is passed unchanged."""
    assert service == where(kind, path)


def test_lifespans_open_in_order_and_close_in_reverse() -> None:
    """Both services start up and shut down as if they ran alone."""
    events: list[str] = []

    def app(name: str) -> Starlette:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            events.append(f"{name} up")
            yield
            events.append(f"{name} down")

        return Starlette(lifespan=lifespan)

    async def run() -> None:
        async with lifespans(app("auth"), app("inference")):
            events.append("serving")

    asyncio.run(run())
    assert ["auth up", "inference up", "serving", "inference down", "auth down"] == events
