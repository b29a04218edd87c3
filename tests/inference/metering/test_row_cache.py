"""The row cache: for how long it serves a row, how many it holds, and invalidation."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from valence_common.db import Database
from valence_common.problems import Unavailable
from valence_inference.metering import row_cache
from valence_inference.metering.row_cache import RowCache

UNREACHABLE = "postgresql+psycopg2://valence:none@127.0.0.1:1/none"


class Row(NamedTuple):
    id: uuid.UUID
    user_id: uuid.UUID
    version: int


class Changes:
    """The part of `Revocations` that the cache subscribes to."""

    def __init__(self) -> None:
        self.publish: Callable[[uuid.UUID], None] = lambda _: None

    def subscribe(self, listener: Callable[[uuid.UUID], None]) -> None:
        self.publish = listener


class RowSource:
    """A cache over rows that a test changes; it reads them in transactions of a real database."""

    def __init__(self, url: str, **options: Any):
        self.database = Database(SecretStr(url), pool_size=3, timeout=1)
        self.changes = Changes()
        self.rows: dict[uuid.UUID, Row] = {}
        self.queries: list[set[uuid.UUID]] = []
        self.during: Callable[[], None] = lambda: None
        options = {"timeout": 1.0, **options}
        self.cache: RowCache[Row] = RowCache(self.database, self.changes, self._read, **options)

    def add(self, user_id: uuid.UUID | None = None) -> uuid.UUID:
        row = Row(uuid.uuid4(), user_id or uuid.uuid4(), 1)
        self.rows[row.id] = row
        return row.id

    def change(self, row_id: uuid.UUID) -> None:
        row = self.rows[row_id]
        self.rows[row_id] = row._replace(version=row.version + 1)

    def _read(self, session: Session, ids: Collection[uuid.UUID]) -> Iterator[Row]:
        session.execute(select(text("1")))
        self.queries.append(set(ids))
        found = [self.rows[row_id] for row_id in ids if row_id in self.rows]
        self.during()
        return iter(found)


@pytest.fixture
def source(database_url: str) -> Iterator[RowSource]:
    source = RowSource(database_url)
    yield source
    source.database.close()


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_a_row_is_read_again_once_it_is_stale(
    source: RowSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is served without a query for a minute; then the cache reads the change."""

    async def work() -> None:
        row_id = source.add()
        for _ in range(3):
            assert 1 == (await source.cache.get(row_id)).version
        source.change(row_id)
        assert 1 == (await source.cache.get(row_id)).version
        assert 1 == len(source.queries)
        now = time.monotonic()
        monkeypatch.setattr(row_cache.time, "monotonic", lambda: now + row_cache.FRESH_SECONDS)
        assert 2 == (await source.cache.get(row_id)).version

    _run(work())


def test_concurrent_reads_share_one_query(source: RowSource) -> None:
    """The first of many requests has a query of its own; all others share the second."""

    async def work() -> None:
        existing = [source.add() for _ in range(20)]
        ids = [*existing, *(uuid.uuid4() for _ in range(20))] * 5
        found = await asyncio.gather(*(source.cache.get(row_id) for row_id in ids))
        assert [source.rows.get(row_id) for row_id in ids] == found
        assert len(source.queries) <= 2
        await asyncio.gather(*(source.cache.get(row_id) for row_id in ids))
        assert len(source.queries) <= 2

    _run(work())


def test_a_change_invalidates_by_row_and_by_user(source: RowSource) -> None:
    """The next read queries the row again; rows of other users stay cached."""

    async def work() -> None:
        user_id = uuid.uuid4()
        one, two, other = source.add(user_id), source.add(user_id), source.add()
        for row_id in (one, two, other):
            await source.cache.get(row_id)
            source.change(row_id)
        source.changes.publish(one)
        versions = [(await source.cache.get(row_id)).version for row_id in (one, two, other)]
        assert [2, 1, 1] == versions
        source.changes.publish(user_id)
        source.change(one)
        versions = [(await source.cache.get(row_id)).version for row_id in (one, two, other)]
        assert [3, 2, 1] == versions

    _run(work())


def test_a_row_read_before_a_change_is_not_cached(source: RowSource) -> None:
    """A change during a query makes the cache repeat the query."""

    async def work() -> None:
        loop, row_id = asyncio.get_running_loop(), source.add()
        published = threading.Event()

        def publish() -> None:
            source.changes.publish(row_id)
            published.set()

        def during() -> None:
            if not published.is_set():
                source.change(row_id)
                loop.call_soon_threadsafe(publish)
                published.wait(1)

        source.during = during
        assert 2 == (await source.cache.get(row_id)).version
        assert 2 == (await source.cache.get(row_id)).version
        assert 2 == len(source.queries)

    _run(work())


def test_memory_is_bounded(source: RowSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used rows are evicted first; unknown ids evict no rows."""
    monkeypatch.setattr(row_cache, "MAX_ROWS", 3)

    async def work() -> None:
        ids = [source.add() for _ in range(3)]
        for row_id in ids:
            await source.cache.get(row_id)
        for _ in range(10):
            assert await source.cache.get(uuid.uuid4()) is None
        await source.cache.get(ids[0])
        await source.cache.get(source.add())
        source.queries.clear()
        for row_id in (ids[0], ids[2]):
            await source.cache.get(row_id)
        assert [] == source.queries
        await source.cache.get(ids[1])
        assert [{ids[1]}] == source.queries
        sizes = [len(part) for part in (source.cache._entries, source.cache._missing)]
        assert max(sizes) <= 3
        assert len(source.cache._ids_of_user) <= 3

    _run(work())


def test_cached_rows_are_served_during_an_outage(
    source: RowSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale row is served for minutes without waiting; an uncached row is unavailable."""

    async def work() -> None:
        row_id = source.add()
        await source.cache.get(row_id)
        unreachable = Database(SecretStr(UNREACHABLE), pool_size=1, timeout=1)
        source.cache._database = unreachable
        source.cache._fresh_seconds = 0.001
        await asyncio.sleep(0.002)
        started = time.monotonic()
        for _ in range(100):
            assert 1 == (await source.cache.get(row_id)).version
        assert source.cache.unavailable
        assert time.monotonic() - started < 1
        with pytest.raises(Unavailable):
            await source.cache.get(uuid.uuid4())
        monkeypatch.setattr(row_cache, "STALE_SECONDS", 0)
        with pytest.raises(Unavailable):
            await source.cache.get(row_id)
        source.changes.publish(row_id)
        monkeypatch.setattr(row_cache, "STALE_SECONDS", 600)
        with pytest.raises(Unavailable):
            await source.cache.get(row_id)
        unreachable.close()

    _run(work())
