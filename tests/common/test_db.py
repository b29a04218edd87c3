"""Postgres: deadlines, read-only servers, cancelled callers."""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

import psycopg2
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session

from support import locks
from support.rows import query
from support.waiting import until
from valence_common import db
from valence_common.problems import Unavailable


def test_login_at_a_silent_server_times_out_outside_a_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """psycopg2's connect_timeout has no effect with a wait callback."""
    monkeypatch.setattr(db, "LOGIN_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        db.make_engine(SecretStr(f"postgresql+psycopg2://u:p@127.0.0.1:{port}/d"))
        with pytest.raises(db.DeadlineExceeded):
            psycopg2.connect(host="127.0.0.1", port=port, user="u", password="p", connect_timeout=1)


def write(database: db.Database) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS things (n integer)"))
        session.execute(text("INSERT INTO things VALUES (1)"))


def process(database: db.Database) -> int:
    """Return the pid of the server's process, which identifies a connection."""
    with database.transaction() as session:
        return session.execute(text("SELECT pg_backend_pid()")).scalar_one()


@pytest.fixture
def database(empty_database_url: str) -> Iterator[db.Database]:
    """A pool of one connection, which is open."""
    database = db.Database(SecretStr(empty_database_url), pool_size=1, timeout=20)
    write(database)
    yield database
    database.close()


@contextlib.contextmanager
def read_only(url: str) -> Iterator[None]:
    """Make new logins read-only, as a standby or a server with a full disk does."""
    name = url.rpartition("/")[2]
    other = url.removesuffix(name) + "postgres"
    query(other, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        yield
    finally:
        query(other, f"ALTER DATABASE {name} RESET default_transaction_read_only")


def test_connection_to_a_read_only_server_is_replaced(
    database: db.Database, empty_database_url: str
) -> None:
    """Writes get a 503; the next connection may reach the new primary."""
    kept = process(database)
    assert kept == process(database)
    database.engine.dispose()
    with read_only(empty_database_url):
        for _ in range(2):
            with pytest.raises(Unavailable):
                write(database)
        assert process(database) != process(database)
    write(database)
    assert process(database) == process(database)


def test_transaction_that_idled_too_long_is_unavailable(
    database: db.Database, empty_database_url: str
) -> None:
    """The server ended the connection; the next transaction gets a working one."""
    alive = "SELECT 1 FROM pg_stat_activity WHERE pid = :pid"
    ended = process(database)

    def idle() -> None:
        with database.transaction() as session:
            session.execute(text("SET idle_in_transaction_session_timeout = '1ms'"))
            until(lambda: not query(empty_database_url, alive, pid=ended), timeout=5)
            session.execute(text("SELECT 1"))

    with pytest.raises(Unavailable):
        idle()
    write(database)


def test_exception_in_a_wait_frees_the_connection(database: db.Database) -> None:
    """A signal's exception is raised from any code; the one connection is free again."""
    before = signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(SystemExit), database.transaction() as session:
            session.execute(text("SELECT pg_sleep(60)"))
    finally:
        signal.signal(signal.SIGALRM, before)
    began = time.monotonic()
    write(database)
    assert time.monotonic() - began < database.timeout / 2


def rows(url: str) -> int:
    [(count,)] = query(url, "SELECT count(*) FROM things")
    return int(count)


def insert(session: Session) -> str:
    session.execute(text("INSERT INTO things VALUES (2)"))
    return "inserted"


async def cancel_while_held(
    database: db.Database, url: str, work: Callable[[Session], str], *, at_commit: bool = False
) -> str:
    """Run `work`, and cancel its caller twice while it waits, or its commit does."""
    with locks.inserts_held(url, "things", at_commit=at_commit):
        caller = asyncio.create_task(database.run(work))
        statement = "COMMIT" if at_commit else "INSERT"
        await asyncio.to_thread(locks.wait_until_held, url, statement)
        for _ in range(2):
            caller.cancel()
            await asyncio.wait({caller}, timeout=0.05)
    return await asyncio.wait_for(caller, 30)


def test_a_cancelled_caller_gets_nothing_committed(
    database: db.Database, empty_database_url: str
) -> None:
    """A client that was answered 503 sends its request again: the first one left no row."""
    before = rows(empty_database_url)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel_while_held(database, empty_database_url, insert))
    database.close()  # waits for the thread
    assert before == rows(empty_database_url)


def test_a_long_transaction_of_a_cancelled_caller_ends_early(
    database: db.Database, empty_database_url: str
) -> None:
    """It notices where it would renew its deadline, not only at its end."""
    steps = []

    def insert_and_go_on(session: Session) -> str:
        steps.append(insert(session))
        db.renew_deadline()
        steps.append("went on")
        return ""

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel_while_held(database, empty_database_url, insert_and_go_on))
    database.close()
    assert ["inserted"] == steps


def test_a_commit_that_has_begun_is_waited_for(
    database: db.Database, empty_database_url: str
) -> None:
    """Too late to cancel: the caller gets the result, and may not be told that it failed."""
    before = rows(empty_database_url)
    held = cancel_while_held(database, empty_database_url, insert, at_commit=True)
    assert "inserted" == asyncio.run(held)
    assert before + 1 == rows(empty_database_url)
