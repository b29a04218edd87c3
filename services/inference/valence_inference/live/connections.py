"""What stays open: event streams and WebSockets, counted, bounded, and ended when they must.

One ends when its credential does, and with the process; who holds it learns why, and says goodbye.
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

POLL_SECONDS: Final = 2.0  # after the second in which revocations are heard of
MAX_CONCURRENT_CHECKS: Final = 50
RETRY_SECONDS: Final = 5


class CloseReason(enum.Enum):
    """Why a stream must end."""

    CREDENTIAL = "its credential has ended"
    STOPPING = "the process stops"


class Connection:
    """One open stream; `ending` says that it must end, and why."""

    def __init__(self, connection: HTTPConnection, principal: Principal):
        self.connection = connection
        self.principal = principal
        self.close_reason: CloseReason | None = None
        self._changed = asyncio.Event()
        self._deadline: tuple[asyncio.Timeout, float] | None = None

    def notify(self) -> None:
        """There is news for it."""
        self._changed.set()

    def request_close(self, why: CloseReason) -> None:
        """It must end."""
        if self.close_reason is not None:
            return
        self.close_reason = why
        self.notify()
        if self._deadline is not None:
            timeout, grace = self._deadline
            if not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time() + grace)

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float, *, grace: float = 0.0) -> AsyncIterator[None]:
        """Give the block so many seconds, and `grace` once the end has come; or `TimeoutError`."""
        async with asyncio.timeout(seconds if self.close_reason is None else grace) as timeout:
            self._deadline = timeout, grace
            try:
                yield
            finally:
                self._deadline = None

    async def wait_for_change(self, timeout: float) -> bool:
        """Whether there was news within so many seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class ConnectionRegistry:
    """All open streams of this process: at most so many, and so many of one user."""

    def __init__(self, *, max_total: int, per_user: int, metrics: ConnectionMetrics):
        self._limit = ConcurrencyLimit(
            max_total=max_total, per_user=per_user, retry_after=RETRY_SECONDS
        )
        self._metrics = metrics
        self._open: set[Connection] = set()
        self._stopping = False

    @contextlib.contextmanager
    def open(self, connection: HTTPConnection, principal: Principal) -> Iterator[Connection]:
        """Hold one for as long as the block lasts; raises `TooManyRequests`."""
        with self._limit.slot(principal.user_id):
            stream = Connection(connection, principal)
            if self._stopping:
                stream.request_close(CloseReason.STOPPING)
            self._open.add(stream)
            gauge = self._metrics.open.labels(connection.scope["type"])
            gauge.inc()
            try:
                yield stream
            finally:
                gauge.dec()
                self._open.discard(stream)

    @contextlib.asynccontextmanager
    async def lifespan(self, stopping: asyncio.Event) -> AsyncIterator[None]:
        """End what must end, for as long as the block lasts."""
        tasks = [
            asyncio.create_task(each)
            for each in (self._poll_forever(), self._close_on_stop(stopping))
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _close_on_stop(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._stopping = True
        for stream in self._open:
            stream.request_close(CloseReason.STOPPING)

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            streams = list(self._open)
            for start in range(0, len(streams), MAX_CONCURRENT_CHECKS):
                await asyncio.gather(*map(_check, streams[start : start + MAX_CONCURRENT_CHECKS]))


async def _check(stream: Connection) -> None:
    """End a stream that would not be let in any more."""
    try:
        await authenticate(stream.connection)
    except Unavailable:
        return  # what is known stays good while nobody can say otherwise
    except DomainError:
        stream.request_close(CloseReason.CREDENTIAL)
    except Exception as error:  # noqa: BLE001 - the next look may succeed, and others wait for it
        structlog.get_logger().error("credential_not_checked", **log_fields(error))
