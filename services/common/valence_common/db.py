"""Postgres with deadlines: one engine a process, one transaction a request or task.

psycopg2 waits for a silent server without end, whatever its timeouts say (the kernel still
acknowledges). So every wait of a connection goes through `_wait`, which honours the deadline of
the running transaction; a bounded set of threads keeps a slow database from taking the process.
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
"""The one generator of ids: UUIDv7, so that order of creation is order of ids."""

LOGIN_SECONDS = 3.0

READ_ONLY = ("in_hot_standby", "default_transaction_read_only")
"""What a server tells unasked, at the login and whenever it changes."""

_running = threading.local()


class DeadlineExceeded(psycopg2.OperationalError):  # type: ignore[misc] # untyped library
    """Postgres did not answer within the transaction's time."""


class TransactionCancelled(Exception):
    """The caller was cancelled before the commit began, so the transaction is rolled back."""


def _wait(connection: Any) -> None:
    """Wait for a connection in psycopg2's cooperative mode, up to the thread's deadline.

    Outside a transaction of ours only the login has one: `connect_timeout` means nothing here.
    """
    deadline: float | None = getattr(_running, "deadline", None)
    if deadline is None and connection.status == psycopg2.extensions.STATUS_SETUP:
        deadline = time.monotonic() + LOGIN_SECONDS
    poller = select.poll()
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise DeadlineExceeded("deadline exceeded")
        mask = select.POLLIN if state == psycopg2.extensions.POLL_READ else select.POLLOUT
        poller.register(connection.fileno(), mask)
        poller.poll(None if left is None else left * 1000)


def renew_deadline() -> None:
    """Give this thread's `transaction` its full time again: it has made progress.

    Raises `TransactionCancelled` when its caller was cancelled.
    """
    settled: threading.Lock | None = getattr(_running, "settled", None)
    if settled is not None and settled.locked():
        raise TransactionCancelled
    timeout: float | None = getattr(_running, "timeout", None)
    if timeout is not None:
        _running.deadline = time.monotonic() + timeout


def make_engine(url: SecretStr, *, statement_seconds: float = 30, **options: Any) -> Engine:
    """An engine whose errors hide parameters and whose sessions are bounded on the server too."""
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
    event.listen(engine, "checkin", _leave_read_only)
    return engine


def _leave_read_only(connection: Any, entry: ConnectionPoolEntry) -> None:
    """Use a connection that can only read once: the next one may find the new primary.

    It would be good for ever otherwise, also for who only reads, and the server out of date.
    """
    if connection is None or connection.closed:
        return  # the pool knows already
    if "on" in map(connection.get_parameter_status, READ_ONLY):
        entry.invalidate(soft=True)


def _dumps(value: object) -> str:
    return msgspec.json.encode(value).decode()


class Database:
    """A pool of `pool_size` connections and as many threads to use them from async code."""

    def __init__(self, url: SecretStr, *, pool_size: int, timeout: float, pooled: bool = True):
        """`timeout` is in seconds; not `pooled` makes a connection for each transaction."""
        self.timeout = timeout
        options: dict[str, Any] = (
            {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": timeout}
            if pooled
            else {"poolclass": NullPool}
        )
        # The server gives up when we do, or what we left behind would fill its connections.
        self.engine = make_engine(url, statement_seconds=timeout, pool_pre_ping=pooled, **options)
        self._threads = ThreadPool("postgres", pool_size, timeout=timeout)

    @contextmanager
    def transaction(self, *, deadline: float | None = None) -> Iterator[Session]:
        """One committed transaction, or none of it.

        `deadline` is in `time.monotonic()` seconds. Raises `Unavailable` when Postgres is down,
        slow, full, restarting or, for who writes, read-only.
        """
        _running.timeout = self.timeout
        _running.deadline = time.monotonic() + self.timeout if deadline is None else deadline
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                yield session
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise Unavailable("postgres") from error
        except DBAPIError as error:
            # What else tells of the server and not of the statement is an OperationalError: a full
            # disk, no memory, a shutdown, locks, deadlocks.
            read_only = isinstance(error.orig, psycopg2.errors.ReadOnlySqlTransaction)
            if read_only or error.connection_invalidated:
                raise Unavailable("postgres") from error
            raise
        finally:
            _running.timeout = _running.deadline = None

    async def run(
        self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(session, …)` in a thread inside one transaction, committed on return.

        A caller that is cancelled (by a drain that took too long) is answered 503 and may send
        its request again, so the transaction is rolled back. Once the commit has begun it is too
        late for that: `run` then ignores the cancellation and returns what came of the commit.

        Raises `Unavailable` when no thread came free, or Postgres did not answer, within
        `timeout` seconds together. If it is the commit that was not answered, Postgres may still
        have carried it out: only an idempotency key makes such a request safe to repeat.
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
        """Whether Postgres answers a query now."""
        try:
            await self.run(lambda session: session.execute(text("SELECT 1")).close())
        except Unavailable:
            return False
        return True

    def close(self) -> None:
        """Give up the threads and connections; transactions under way run to their deadline."""
        self._threads.close()
        self.engine.dispose()
