"""Usage of the API, counted in memory and written to Postgres every few seconds."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Final, NamedTuple

import structlog
from sqlalchemy import Date, DateTime, Integer, String, Uuid, column, func, select, update, values
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from valence_common.db import Database
from valence_common.models import NO_KEY, ApiKey, User
from valence_common.models import Usage as UsageRow
from valence_common.problems import Unavailable
from valence_common.revocations import Revocations
from valence_common.security import Principal
from valence_inference.metering.row_cache import RowCache

FLUSH_SECONDS: Final = 5.0
MAX_ROWS_PER_FLUSH: Final = 1_000
"""Rows per transaction."""

MAX_PENDING: Final = 100_000
"""Rows that a process holds while Postgres is unavailable."""


class UsageKey(NamedTuple):
    """The primary key of a row of usage."""

    user_id: uuid.UUID
    day: date
    key_id: uuid.UUID
    route: str


class Count(NamedTuple):
    """Requests and the texts in them."""

    requests: int
    texts: int


class Usage:
    """Counts answered requests, and notes when API keys were last used."""

    def __init__(self, database: Database):
        self._database = database
        self._counts: dict[UsageKey, Count] = {}
        self._key_uses: dict[uuid.UUID, datetime] = {}
        self._dropped = 0

    def count(self, principal: Principal, route: str, texts: int) -> None:
        """Count one answered request to a route, with this many texts."""
        key_id = principal.key_id or NO_KEY
        self._add(UsageKey(principal.user_id, _today(), key_id, route), Count(1, texts))

    def touch(self, key_id: uuid.UUID) -> None:
        """Note that an API key was used, whatever the outcome of the request."""
        if len(self._key_uses) < MAX_PENDING or key_id in self._key_uses:
            self._key_uses[key_id] = datetime.now(UTC)

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Flush every `FLUSH_SECONDS`, and once more at the end of the block."""
        ended = asyncio.Event()

        async def flush_forever() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), FLUSH_SECONDS)
                await self.flush()

        task = asyncio.create_task(flush_forever())
        try:
            yield
        finally:
            ended.set()
            await task

    async def flush(self) -> None:
        """Write the pending counts; what cannot be written stays pending."""
        if self._dropped:
            structlog.get_logger().error("usage_lost", requests=self._dropped)
            self._dropped = 0
        counts, self._counts = self._counts, {}
        key_uses, self._key_uses = self._key_uses, {}
        try:
            while counts or key_uses:
                some_counts = dict(list(counts.items())[:MAX_ROWS_PER_FLUSH])
                some_uses = dict(list(key_uses.items())[:MAX_ROWS_PER_FLUSH])
                await self._database.run(_write, some_counts, some_uses)
                counts = {k: v for k, v in counts.items() if k not in some_counts}
                key_uses = {k: v for k, v in key_uses.items() if k not in some_uses}
        except (Unavailable, SQLAlchemyError) as error:
            structlog.get_logger().warning("usage_not_written", error=type(error).__name__)
        for key, count in counts.items():
            self._add(key, count)
        self._key_uses = key_uses | self._key_uses

    def _add(self, key: UsageKey, count: Count) -> None:
        pending = self._counts.get(key)
        if pending is not None:
            count = Count(pending.requests + count.requests, pending.texts + count.texts)
        elif len(self._counts) >= MAX_PENDING:
            self._dropped += count.requests
            return
        self._counts[key] = count


class _TextsRow(NamedTuple):
    id: uuid.UUID
    day: date
    texts: int

    @property
    def user_id(self) -> uuid.UUID:
        return self.id


class TextsToday:
    """The texts of each user that all processes have written to Postgres today."""

    def __init__(self, database: Database, revocations: Revocations):
        # Read only when Redis has no counter. Concurrent reads share a query; a row cached even for
        # a second could miss texts that were written since, so it is served only in an outage.
        self._users = RowCache(database, revocations, _read_today, timeout=0.25, fresh_seconds=0.0)

    async def get(self, user_id: uuid.UUID) -> int:
        """Return the number; raise `Unavailable` if Postgres does not answer."""
        row = await self._users.get(user_id)
        return row.texts if row is not None and row.day == _today() else 0


def _today() -> date:
    return datetime.now(UTC).date()


def _read_today(session: Session, user_ids: Collection[uuid.UUID]) -> Iterator[_TextsRow]:
    day = _today()
    query = (
        select(UsageRow.user_id, func.sum(UsageRow.texts))
        .where(UsageRow.user_id.in_(user_ids), UsageRow.day == day)
        .group_by(UsageRow.user_id)
    )
    texts = {user_id: int(total) for user_id, total in session.execute(query)}
    for user_id in user_ids:
        yield _TextsRow(user_id, day, texts.get(user_id, 0))


def _write(
    session: Session,
    counts: Mapping[UsageKey, Count],
    key_uses: Mapping[uuid.UUID, datetime],
) -> None:
    if counts:
        _upsert_counts(session, [(*key, *count) for key, count in counts.items()])
    if key_uses:
        _update_last_used(session, key_uses)


def _upsert_counts(session: Session, rows: Sequence[tuple[object, ...]]) -> None:
    new = values(
        column("user_id", Uuid),
        column("day", Date),
        column("key_id", Uuid),
        column("route", String),
        column("requests", Integer),
        column("texts", Integer),
        name="new",
    ).data(rows)
    # The join leaves out users deleted meanwhile; one order for all processes avoids deadlocks.
    existing = (
        select(new)
        .join(User, User.id == new.c.user_id)
        .order_by(new.c.user_id, new.c.day, new.c.key_id, new.c.route)
    )
    statement = insert(UsageRow).from_select([c.name for c in new.c], existing)
    session.execute(
        statement.on_conflict_do_update(
            constraint="pk_usage",
            set_={
                "requests": UsageRow.requests + statement.excluded.requests,
                "texts": UsageRow.texts + statement.excluded.texts,
            },
        )
    )


def _update_last_used(session: Session, key_uses: Mapping[uuid.UUID, datetime]) -> None:
    """Update when API keys were last used; a key locked by a transaction waits for its next use."""
    unlocked = select(ApiKey.id).where(ApiKey.id.in_(key_uses)).with_for_update(skip_locked=True)
    keys = session.scalars(unlocked).all()
    if not keys:
        return
    new = values(column("id", Uuid), column("used_at", DateTime(timezone=True)), name="new").data(
        [(key_id, key_uses[key_id]) for key_id in keys]
    )
    latest = func.greatest(ApiKey.last_used_at, new.c.used_at)
    session.execute(
        update(ApiKey).where(ApiKey.id == new.c.id).values(last_used_at=latest),
        execution_options={"synchronize_session": False},
    )
