"""The registry of open connections: event streams and WebSockets.

It bounds their number, and asks a connection to close when its credential is no longer valid or the
process stops. The handler of the connection then closes it and can tell the client why.
"""

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator, Iterator
from typing import Final

import structlog
from starlette.requests import HTTPConnection

from valence_common.concurrency import ConcurrencyLimit
from valence_common.log import log_fields
from valence_common.problems import DomainError, Unavailable
from valence_common.security import Principal
from valence_common.web.access import authenticate
from valence_inference.live.metrics import ConnectionMetrics

POLL_SECONDS: Final = 2.0
"""The interval of credential checks; a revocation is known within a second before."""

MAX_CONCURRENT_CHECKS: Final = 50
RETRY_SECONDS: Final = 5


class CloseReason(enum.Enum):
    """Why a connection must close."""

    CREDENTIAL = "its credential is no longer valid"
    STOPPING = "the process stops"


class Connection:
    """One open connection; once `close_reason` is set, its handler must close it."""

    def __init__(self, request: HTTPConnection, principal: Principal):
        self.request = request
        self.principal = principal
        self.close_reason: CloseReason | None = None
        self._changed = asyncio.Event()
        self._timeout: tuple[asyncio.Timeout, float] | None = None

    def notify(self) -> None:
        """Wake the handler that waits for a change."""
        self._changed.set()

    def request_close(self, reason: CloseReason) -> None:
        """Ask the handler to close the connection; only the first reason counts."""
        if self.close_reason is not None:
            return
        self.close_reason = reason
        self.notify()
        if self._timeout is not None:
            timeout, grace = self._timeout
            if not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time() + grace)

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float, *, grace: float = 0.0) -> AsyncIterator[None]:
        """Raise `TimeoutError` if the block takes longer than `seconds`.

        Once the connection must close, the block has `grace` seconds left.
        """
        async with asyncio.timeout(seconds if self.close_reason is None else grace) as timeout:
            self._timeout = timeout, grace
            try:
                yield
            finally:
                self._timeout = None

    async def wait_for_change(self, timeout: float) -> bool:
        """Wait for `notify`; return False after `timeout` seconds without one."""
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class ConnectionRegistry:
    """The open connections of this process, limited in total and per user."""

    def __init__(self, *, max_total: int, per_user: int, metrics: ConnectionMetrics):
        self._limit = ConcurrencyLimit(
            max_total=max_total, per_user=per_user, retry_after=RETRY_SECONDS
        )
        self._metrics = metrics
        self._open: set[Connection] = set()
        self._stopping = False

    @contextlib.contextmanager
    def open(self, request: HTTPConnection, principal: Principal) -> Iterator[Connection]:
        """Register a connection for the duration of the block; raise `TooManyRequests`."""
        with self._limit.slot(principal.user_id):
            connection = Connection(request, principal)
            if self._stopping:
                connection.request_close(CloseReason.STOPPING)
            self._open.add(connection)
            gauge = self._metrics.open.labels(request.scope["type"])
            gauge.inc()
            try:
                yield connection
            finally:
                gauge.dec()
                self._open.discard(connection)

    @contextlib.asynccontextmanager
    async def lifespan(self, stopping: asyncio.Event) -> AsyncIterator[None]:
        """Check credentials during the block, and close all connections once `stopping` is set."""
        tasks = [
            asyncio.create_task(self._poll_forever()),
            asyncio.create_task(self._close_on_stop(stopping)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _close_on_stop(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._stopping = True
        for connection in self._open:
            connection.request_close(CloseReason.STOPPING)

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            connections = list(self._open)
            for start in range(0, len(connections), MAX_CONCURRENT_CHECKS):
                some = connections[start : start + MAX_CONCURRENT_CHECKS]
                await asyncio.gather(*map(_check_credential, some))


async def _check_credential(connection: Connection) -> None:
    """Close a connection whose request would be rejected now."""
    try:
        await authenticate(connection.request)
    except Unavailable:
        return  # during an outage the connection stays open
    except DomainError:
        connection.request_close(CloseReason.CREDENTIAL)
    except Exception as error:  # noqa: BLE001 - other connections wait, and the next poll may succeed
        structlog.get_logger().error("credential_not_checked", **log_fields(error))
