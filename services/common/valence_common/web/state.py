"""Typed state: of an application for its lifetime, and of one request."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from starlette.types import Scope

from valence_common.db import Database
from valence_common.health import Health
from valence_common.keyring import Keyring
from valence_common.metrics import HttpMetrics
from valence_common.rate_limits import LimitStatus
from valence_common.redis_client import RedisClient
from valence_common.revocations import Revocations
from valence_common.security import Principal
from valence_common.settings import WebSettings

READY_POLL_SECONDS = 0.1


class KeyVerifier(Protocol):
    """Verifies API keys."""

    async def verify(self, key: str) -> Principal:
        """Return the key's principal; raise `InvalidCredential`, or `Unavailable` in an outage."""
        ...


class RequestMeter(Protocol):
    """Counts requests against limits."""

    async def count(self, connection: HTTPConnection, principal: Principal) -> None:
        """Count one request; raise `TooManyRequests`."""
        ...


class Resources:
    """The resources that every web service holds; the subclass of a service adds its own.

    Nothing connects before its first use, so an instance can be made while dependencies are down.
    """

    def __init__(self, settings: WebSettings):
        """Raise `KeyringError` for signing keys that must not be used."""
        self.settings = settings
        self.keyring = Keyring(settings.jwt_keyring_file)
        self.database = Database(
            settings.database_url,
            pool_size=settings.database_pool_size,
            timeout=settings.database_timeout_seconds,
        )
        self.redis = RedisClient(settings.redis_url, timeout=settings.redis_timeout_seconds)
        self.revocations = Revocations(settings.database_url)
        self.health = Health({"postgres": self.database.ping, "redis": self.redis.ping})
        self.metrics = HttpMetrics()
        self.metrics.revocations_age.set_function(lambda: self.revocations.age)
        self.stopping = asyncio.Event()
        """Set on SIGTERM; open streams close."""
        self.api_keys: KeyVerifier | None = None
        """Set by a service that accepts API keys."""
        self.meter: RequestMeter | None = None
        """Set by a service that limits use."""
        self.message_bytes = 0
        """The largest WebSocket message, in bytes; 0 where the service has no WebSocket."""

    async def become_ready(self) -> None:
        """Wait until Postgres has answered and the revocations have been read."""
        while not self.revocations.loaded:
            await asyncio.sleep(READY_POLL_SECONDS)
        await self.health.become_ready()

    async def close(self) -> None:
        """Close the connections, in reverse order."""
        await self.redis.close()
        await asyncio.to_thread(self.revocations.close)
        await asyncio.to_thread(self.database.close)


R = TypeVar("R", bound=Resources)


def resources(app: FastAPI) -> Resources:
    """Return the resources of an application."""
    held: Resources = app.state.resources
    return held


def provide(kind: type[R], get: Callable[[R], object]) -> Any:
    """Return the dependency that hands a handler one value of its application's `kind`."""

    def dependency(connection: HTTPConnection) -> object:
        held = resources(connection.app)
        if not isinstance(held, kind):
            raise TypeError(f"this application has no {kind.__name__}")
        return get(held)

    return Depends(dependency)


@dataclass(slots=True)
class RequestState:
    """The state that the layers of one request share, in addition to its id."""

    principals: dict[object, Principal] = field(default_factory=dict)
    """The authenticated principal, by the `Access` that required it."""
    limits: list[LimitStatus] = field(default_factory=list)
    """The limits that the request was counted against."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers to add to the response, whichever it is."""
    untimed: bool = False
    """Whether the response stays open for as long as the client likes."""


def request_state(scope: Scope) -> RequestState:
    """Return the state of one request; the first call makes it."""
    state: RequestState = scope.setdefault("state", {}).setdefault("request", RequestState())
    return state
