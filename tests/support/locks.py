"""Locks that another session holds, the migrations' own among them."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import create_engine

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
