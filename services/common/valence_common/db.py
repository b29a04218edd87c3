"""Postgres with deadlines: one engine a process, one transaction a request or task.

psycopg2 waits for ever for a frozen server: its timeouts do not apply while the kernel still
acknowledges packets. So every wait of a connection goes through `_wait`, which enforces the
deadline of the running transaction. A bounded thread pool keeps a slow database from blocking the
process.
"""

import asyncio
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
import psycopg2
import psycopg2.errors
import psycopg2.extensions
import uuid_utils.compat
from pydantic import SecretStr
from sqlalchemy import Engine, NullPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from valence_common.concurrency import ThreadPool
from valence_common.problems import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

new_id = uuid_utils.compat.uuid7
"""Generates all ids: UUIDv7, so that ids are in the order of creation."""

LOGIN_SECONDS = 3.0

READ_ONLY_PARAMETERS = ("in_hot_standby", "default_transaction_read_only")
"""Parameters that a server reports at login and whenever they change."""

_running = threading.local()


class DeadlineExceeded(psycopg2.OperationalError):  # type: ignore[misc] # untyped library
    """Postgres did not answer before the transaction's deadline."""


class TransactionCancelled(Exception):
    """The caller was cancelled before the commit began, so the transaction is rolled back."""


def _wait(connection: Any) -> None:
    """Wait for a connection in psycopg2's cooperative mode, up to the thread's deadline.

    Outside `Database.transaction` only the login has a deadline: psycopg2 ignores `connect_timeout`
    in this mode.
    """
    deadline: float | None = getattr(_running, "deadline", None)
    if deadline is None and connection.status == psycopg2.extensions.STATUS_SETUP:
        deadline = time.monotonic() + LOGIN_SECONDS
    poller = select.poll()
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            raise DeadlineExceeded("deadline exceeded")
        mask = select.POLLIN if state == psycopg2.extensions.POLL_READ else select.POLLOUT
        poller.register(connection.fileno(), mask)
        poller.poll(None if remaining is None else remaining * 1000)


def renew_deadline() -> None:
    """Restart the timeout of this thread's transaction, which has made progress.

    Raise `TransactionCancelled` when its caller was cancelled.
    """
    settled: threading.Lock | None = getattr(_running, "settled", None)
    if settled is not None and settled.locked():
        raise TransactionCancelled
    timeout: float | None = getattr(_running, "timeout", None)
    if timeout is not None:
        _running.deadline = time.monotonic() + timeout


def make_engine(url: SecretStr, *, statement_seconds: float = 30, **options: Any) -> Engine:
    """Return an engine whose errors hide parameters, with timeouts set on the server too."""
    psycopg2.extensions.set_wait_callback(_wait)
    engine = create_engine(
        url.get_secret_value(),
        hide_parameters=True,
        json_serializer=_dumps,
        json_deserializer=msgspec.json.decode,
        connect_args={
            "application_name": "valence",
            "options": "-c timezone=UTC -c lock_timeout=5s"
            " -c idle_in_transaction_session_timeout=60s"
            f" -c statement_timeout={round(statement_seconds * 1000)}ms",
        },
        **options,
    )
    event.listen(engine, "checkin", _discard_read_only)
    return engine


def _discard_read_only(connection: Any, entry: ConnectionPoolEntry) -> None:
    """Discard a connection to a read-only server, so that the next one may reach a new primary.

    Otherwise the pool would keep it for ever and serve reads from an outdated server.
    """
    if connection is None or connection.closed:
        return  # the pool discards it anyway
    if "on" in map(connection.get_parameter_status, READ_ONLY_PARAMETERS):
        entry.invalidate(soft=True)


def _dumps(value: object) -> str:
    return msgspec.json.encode(value).decode()


class Database:
    """A pool of `pool_size` connections and as many threads to use them from async code."""

    def __init__(self, url: SecretStr, *, pool_size: int, timeout: float, pooled: bool = True):
        """`timeout` is in seconds; without `pooled` each transaction opens a connection."""
        self.timeout = timeout
        options: dict[str, Any] = (
            {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": timeout}
            if pooled
            else {"poolclass": NullPool}
        )
        # The server cancels a statement when we do, so abandoned ones occupy no connections.
        self.engine = make_engine(url, statement_seconds=timeout, pool_pre_ping=pooled, **options)
        self._threads = ThreadPool("postgres", pool_size, timeout=timeout)

    @contextmanager
    def transaction(self, *, deadline: float | None = None) -> Iterator[Session]:
        """Open a transaction that commits at the end, or rolls back on an error.

        `deadline` is a `time.monotonic()` time. Raise `Unavailable` when Postgres is down, slow,
        full, restarting or, for a write, read-only.
        """
        _running.timeout = self.timeout
        _running.deadline = time.monotonic() + self.timeout if deadline is None else deadline
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                yield session
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise Unavailable("postgres") from error
        except DBAPIError as error:
            # All other errors of the server (a full disk, no memory, a shutdown, locks, deadlocks)
            # are OperationalErrors; the rest are errors of the statement.
            read_only = isinstance(error.orig, psycopg2.errors.ReadOnlySqlTransaction)
            if read_only or error.connection_invalidated:
                raise Unavailable("postgres") from error
            raise
        finally:
            _running.timeout = _running.deadline = None

    async def run(
        self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(session, …)` in a thread, in one transaction that commits on return.

        When a drain times out, the caller is cancelled: the client is answered 503 and may retry,
        so the transaction is rolled back. Once the commit has begun, `run` ignores the cancellation
        and returns the outcome of the commit.

        Raise `Unavailable` when waiting for a thread and for Postgres together took longer than
        `timeout` seconds. If Postgres did not answer the commit, it may still have executed it:
        only an idempotency key makes such a request safe to repeat.
        """
        deadline = time.monotonic() + self.timeout
        settled = threading.Lock()  # the first to take it decides: the commit or the cancellation

        def transact() -> T:
            _running.settled = settled
            try:
                with self.transaction(deadline=deadline) as session:
                    result = work(session, *args, **kwargs)
                    session.flush()
                    if not settled.acquire(blocking=False):
                        raise TransactionCancelled
                    return result
            finally:
                _running.settled = None

        future = await self._threads.start(transact)
        while True:
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                if settled.acquire(blocking=False):
                    future.cancel()
                    raise
                if (task := asyncio.current_task()) is not None:
                    task.uncancel()

    async def ping(self) -> bool:
        """Return whether Postgres answers a query now."""
        try:
            await self.run(lambda session: session.execute(text("SELECT 1")).close())
        except Unavailable:
            return False
        return True

    def close(self) -> None:
        """Close the threads and connections; running transactions last until their deadline."""
        self._threads.close()
        self.engine.dispose()
