"""Locks that another session holds, the migrations' own among them."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import create_engine

from support.rows import query
from support.waiting import until

HOLD = 0x686F6C64
MIGRATION = f"SELECT pg_advisory_lock({0x76616C656E6365})"
WAITERS = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@contextlib.contextmanager
def held(url: str, lock: str) -> Iterator[None]:
    """Another session's lock."""
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql(lock)
        yield
    engine.dispose()


@contextlib.contextmanager
def inserts_held(
    url: str, table: str, *, when: str = "true", at_commit: bool = False
) -> Iterator[None]:
    """Whoever inserts rows of which `when` holds (as `NEW`) waits: there, or in their commit.

    They ask again and again, as `lock_timeout` would end a wait for the lock itself. The trigger
    stays; once nobody holds the lock it lets everybody pass.
    """
    kind, moment = "TRIGGER", "BEFORE INSERT"
    if at_commit:
        kind, moment = "CONSTRAINT TRIGGER", "AFTER INSERT"
    query(
        url,
        "CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        f" WHILE NOT pg_try_advisory_xact_lock_shared({HOLD}) LOOP PERFORM pg_sleep(0.02);"
        " END LOOP; RETURN NEW; END'",
    )
    query(url, f"DROP TRIGGER IF EXISTS hold ON {table}")
    query(
        url,
        f"CREATE {kind} hold {moment} ON {table}"
        f" {'DEFERRABLE INITIALLY DEFERRED' if at_commit else ''}"
        f" FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION hold()",
    )
    with held(url, f"SELECT pg_advisory_lock({HOLD})"):
        yield


def wait_until_held(url: str, statement: str) -> None:
    """Wait until somebody who executes a statement that begins so is held."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE :begin"
    until(lambda: query(url, waiting, begin=f"{statement}%"), timeout=30, what=f"{statement} held")
