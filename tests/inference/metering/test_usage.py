"""Usage: counted in memory, added up in Postgres."""

import asyncio
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from support.batches import make_user
from support.rows import query
from valence_auth import api_keys
from valence_common.db import Database
from valence_common.security import Principal
from valence_inference.metering import usage
from valence_inference.metering.usage import TextsToday, Usage

SCOPES = frozenset({"analyze"})


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(SecretStr(database_url), pool_size=2, timeout=2.5)
    yield database
    database.close()


def _user(database: Database) -> Principal:
    with database.transaction() as session:
        return Principal(make_user(session), SCOPES, 0, session_id=uuid.uuid4())


def _key(database: Database, owner: Principal) -> Principal:
    with database.transaction() as session:
        made = api_keys.create(
            session, owner, name="a key", scopes=None, expires_at=None, per_minute=None
        )
    return Principal(owner.user_id, SCOPES, 0, key_id=made.row.id)


def _rows(url: str, principal: Principal) -> list[tuple[object, ...]]:
    statement = "SELECT key_id, route, requests, texts FROM usage WHERE user_id = :id ORDER BY 1, 2"
    return query(url, statement, id=principal.user_id)


def test_counts_of_all_processes_add_up(database: Database, database_url: str) -> None:
    """Two processes count requests of the same user repeatedly."""

    async def work() -> None:
        user = _user(database)
        key = _key(database, user)
        for _ in range(3):
            one, two = Usage(database), Usage(database)
            for process in (one, two):
                process.count(user, "analyze", 1)
                process.count(user, "analyze", 1)
                process.count(key, "analyze", 1)
                process.count(key, "batch", 500)
            await asyncio.gather(one.flush(), two.flush())
            await one.flush()
        no_key = uuid.UUID(int=0)
        assert key.key_id is not None
        assert [
            (no_key, "analyze", 12, 12),
            (key.key_id, "analyze", 6, 6),
            (key.key_id, "batch", 6, 3000),
        ] == _rows(database_url, user)

    asyncio.run(work())


def test_texts_of_today_include_what_was_just_written(database: Database) -> None:
    """A count that was read a moment ago does not hide texts written since."""

    async def work() -> None:
        texts_today = TextsToday(database, SimpleNamespace(subscribe=lambda _: None))
        user, usage_counts = _user(database), Usage(database)
        assert 0 == await texts_today.get(user.user_id)
        usage_counts.count(user, "batch", 3)
        await usage_counts.flush()
        assert 3 == await texts_today.get(user.user_id)

    asyncio.run(work())


def test_deleted_users_are_left_out(database: Database, database_url: str) -> None:
    """The counts of a deleted user are left out; those of the others are written."""

    async def work() -> None:
        usage_counts, users = Usage(database), [_user(database) for _ in range(5)]
        for user in users:
            usage_counts.count(user, "analyze", 1)
        query(database_url, "DELETE FROM users WHERE id = :id", id=users[2].user_id)
        await usage_counts.flush()
        counts = [len(_rows(database_url, user)) for user in users]
        assert [1, 1, 0, 1, 1] == counts
        assert {} == usage_counts._counts

    asyncio.run(work())


def test_counts_stay_pending_during_an_outage(database: Database, database_url: str) -> None:
    """During an outage counts stay pending, together with later ones."""

    async def work() -> None:
        unreachable = Database(
            SecretStr("postgresql+psycopg2://a:b@127.0.0.1:1/c"), pool_size=1, timeout=1
        )
        user = _user(database)
        key = _key(database, user)
        usage_counts = Usage(unreachable)
        usage_counts.count(user, "analyze", 1)
        usage_counts.touch(key.key_id)
        with capture_logs() as logs:
            await usage_counts.flush()
        assert ["usage_not_written"] == [entry["event"] for entry in logs]
        usage_counts.count(user, "analyze", 2)
        usage_counts._database = database
        await usage_counts.flush()
        assert [(uuid.UUID(int=0), "analyze", 2, 3)] == _rows(database_url, user)
        unreachable.close()

    asyncio.run(work())


def test_memory_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit new rows are dropped, existing ones still count, and the log has the number."""
    monkeypatch.setattr(usage, "MAX_PENDING", 3)
    monkeypatch.setattr(usage, "MAX_ROWS_PER_FLUSH", 2)

    async def work() -> None:
        usage_counts = Usage(database)
        users = [_user(database) for _ in range(5)]
        for user in [*users, *users]:
            usage_counts.count(user, "analyze", 1)
            usage_counts.touch(user.user_id)
        assert (3, 3) == (len(usage_counts._counts), len(usage_counts._key_uses))
        with capture_logs() as logs:
            await usage_counts.flush()
        assert [("usage_lost", 4)] == [(entry["event"], entry["requests"]) for entry in logs]
        assert ({}, {}) == (usage_counts._counts, usage_counts._key_uses)

    asyncio.run(work())


def test_last_use_of_a_key_never_goes_back(database: Database, database_url: str) -> None:
    """The latest use of all processes is kept; a locked row is skipped."""

    async def work() -> None:
        user = _user(database)
        key = _key(database, user)
        statement = "SELECT last_used_at FROM api_keys WHERE id = :id"
        usage_counts = Usage(database)
        usage_counts.touch(key.key_id)
        await usage_counts.flush()
        [(first,)] = query(database_url, statement, id=key.key_id)
        assert abs((datetime.now(UTC) - first).total_seconds()) < 60
        usage_counts._key_uses[key.key_id] = datetime(2020, 1, 1, tzinfo=UTC)
        await usage_counts.flush()
        assert [(first,)] == query(database_url, statement, id=key.key_id)
        with database.transaction() as session:
            session.execute(api_keys.select(api_keys.ApiKey).with_for_update())
            usage_counts.touch(key.key_id)
            await usage_counts.flush()
        assert [(first,)] == query(database_url, statement, id=key.key_id)

    asyncio.run(work())
