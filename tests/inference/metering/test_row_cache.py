"""What is remembered of keys and users: how long, how much, and what news does to it."""

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

NOWHERE = "postgresql+psycopg2://valence:none@127.0.0.1:1/none"


class Row(NamedTuple):
    id: uuid.UUID
    user_id: uuid.UUID
    version: int


class News:
    """The part of `Revocations` that tells."""

    def __init__(self) -> None:
        self.tell: Callable[[uuid.UUID], None] = lambda _: None

    def listen(self, listener: Callable[[uuid.UUID], None]) -> None:
        self.tell = listener


class Place:
    """Rows that a test changes, read through a real database's transactions."""

    def __init__(self, url: str, **options: Any):
        self.database = Database(SecretStr(url), pool_size=3, timeout=1)
        self.news = News()
        self.rows: dict[uuid.UUID, Row] = {}
        self.asked: list[set[uuid.UUID]] = []
        self.during: Callable[[], None] = lambda: None
        options = {"patience": 1.0, **options}
        self.kept: RowCache[Row] = RowCache(self.database, self.news, self._read, **options)

    def add(self, user_id: uuid.UUID | None = None) -> uuid.UUID:
        row = Row(uuid.uuid4(), user_id or uuid.uuid4(), 1)
        self.rows[row.id] = row
        return row.id

    def change(self, row_id: uuid.UUID) -> None:
        row = self.rows[row_id]
        self.rows[row_id] = row._replace(version=row.version + 1)

    def _read(self, session: Session, ids: Collection[uuid.UUID]) -> Iterator[Row]:
        session.execute(select(text("1")))
        self.asked.append(set(ids))
        found = [self.rows[row_id] for row_id in ids if row_id in self.rows]
        self.during()
        return iter(found)


@pytest.fixture
def place(database_url: str) -> Iterator[Place]:
    place = Place(database_url)
    yield place
    place.database.close()


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_a_row_is_read_once_and_again_when_it_is_old(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a minute nobody asks again; then the change is seen."""

    async def work() -> None:
        row_id = place.add()
        for _ in range(3):
            assert 1 == (await place.kept.get(row_id)).version
        place.change(row_id)
        assert 1 == (await place.kept.get(row_id)).version
        assert 1 == len(place.asked)
        now = time.monotonic()
        monkeypatch.setattr(row_cache.time, "monotonic", lambda: now + row_cache.FRESH_SECONDS)
        assert 2 == (await place.kept.get(row_id)).version

    _run(work())


def test_what_comes_together_is_one_query(place: Place) -> None:
    """Of many requests for many rows, known or not, the first is alone and the rest share."""

    async def work() -> None:
        known = [place.add() for _ in range(20)]
        wanted = [*known, *(uuid.uuid4() for _ in range(20))] * 5
        found = await asyncio.gather(*(place.kept.get(row_id) for row_id in wanted))
        assert [place.rows.get(row_id) for row_id in wanted] == found
        assert len(place.asked) <= 2
        await asyncio.gather(*(place.kept.get(row_id) for row_id in wanted))
        assert len(place.asked) <= 2

    _run(work())


def test_news_drops_a_row_by_its_id_and_by_its_user(place: Place) -> None:
    """The next look reads it again; other users' rows stay."""

    async def work() -> None:
        user_id = uuid.uuid4()
        one, two, other = place.add(user_id), place.add(user_id), place.add()
        for row_id in (one, two, other):
            await place.kept.get(row_id)
            place.change(row_id)
        place.news.tell(one)
        versions = [(await place.kept.get(row_id)).version for row_id in (one, two, other)]
        assert [2, 1, 1] == versions
        place.news.tell(user_id)
        place.change(one)
        versions = [(await place.kept.get(row_id)).version for row_id in (one, two, other)]
        assert [3, 2, 1] == versions

    _run(work())


def test_a_row_read_before_the_news_is_not_kept_after_it(place: Place) -> None:
    """News that comes while a query is under way makes it be asked again."""

    async def work() -> None:
        loop, row_id = asyncio.get_running_loop(), place.add()
        told = threading.Event()

        def tell() -> None:
            place.news.tell(row_id)
            told.set()

        def during() -> None:
            if not told.is_set():
                place.change(row_id)
                loop.call_soon_threadsafe(tell)
                told.wait(1)

        place.during = during
        assert 2 == (await place.kept.get(row_id)).version
        assert 2 == (await place.kept.get(row_id)).version
        assert 2 == len(place.asked)

    _run(work())


def test_memory_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least used go first; made-up ids do not push out those that exist."""
    monkeypatch.setattr(row_cache, "MAX_ROWS", 3)

    async def work() -> None:
        rows = [place.add() for _ in range(3)]
        for row_id in rows:
            await place.kept.get(row_id)
        for _ in range(10):
            assert await place.kept.get(uuid.uuid4()) is None
        await place.kept.get(rows[0])
        await place.kept.get(place.add())
        place.asked.clear()
        for row_id in (rows[0], rows[2]):
            await place.kept.get(row_id)
        assert [] == place.asked
        await place.kept.get(rows[1])
        assert [{rows[1]}] == place.asked
        sizes = [len(part) for part in (place.kept._entries, place.kept._missing)]
        assert max(sizes) <= 3
        assert len(place.kept._of_user) <= 3

    _run(work())


def test_without_postgres_what_is_known_lives_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old row is good for some minutes, and waits for nobody; an unknown one is unavailable."""

    async def work() -> None:
        row_id = place.add()
        await place.kept.get(row_id)
        away = Database(SecretStr(NOWHERE), pool_size=1, timeout=1)
        place.kept._database = away
        place.kept._fresh_seconds = 0.001
        await asyncio.sleep(0.002)
        started = time.monotonic()
        for _ in range(100):
            assert 1 == (await place.kept.get(row_id)).version
        assert place.kept.unavailable
        assert time.monotonic() - started < 1
        with pytest.raises(Unavailable):
            await place.kept.get(uuid.uuid4())
        monkeypatch.setattr(row_cache, "STALE_SECONDS", 0)
        with pytest.raises(Unavailable):
            await place.kept.get(row_id)
        place.news.tell(row_id)
        monkeypatch.setattr(row_cache, "STALE_SECONDS", 600)
        with pytest.raises(Unavailable):
            await place.kept.get(row_id)
        away.close()

    _run(work())
