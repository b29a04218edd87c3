"""Usage: counted in memory, written every few seconds for many requests at once."""

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
MAX_ROWS_PER_FLUSH: Final = 1_000  # rows a transaction
MAX_PENDING: Final = 100_000  # rows in memory, while Postgres is away


class UsageKey(NamedTuple):
    """Where something is counted: the primary key of its row."""

    user_id: uuid.UUID
    day: date
    key_id: uuid.UUID
    route: str


class Count(NamedTuple):
    """How much."""

    requests: int
    texts: int


class Usage:
    """Counts what was answered, and when keys were used."""

    def __init__(self, database: Database):
        self._database = database
        self._counts: dict[UsageKey, Count] = {}
        self._key_uses: dict[uuid.UUID, datetime] = {}
        self._dropped = 0

    def count(self, principal: Principal, route: str, texts: int) -> None:
        """One request to a route was answered, with this many texts in it."""
        key_id = principal.key_id or NO_KEY
        place = UsageKey(principal.user_id, _today(), key_id, route)
        self._add(place, Count(1, texts))

    def touch(self, key_id: uuid.UUID) -> None:
        """A key was used, whatever came of it."""
        if len(self._key_uses) < MAX_PENDING or key_id in self._key_uses:
            self._key_uses[key_id] = datetime.now(UTC)

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Write what is counted every few seconds, and once more at the end."""
        ended = asyncio.Event()

        async def write() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), FLUSH_SECONDS)
                await self.flush()

        task = asyncio.create_task(write())
        try:
            yield
        finally:
            ended.set()
            await task

    async def flush(self) -> None:
        """Write what was counted so far; what cannot be written now is kept."""
        if self._dropped:
            structlog.get_logger().error("usage_lost", requests=self._dropped)
            self._dropped = 0
        counts, self._counts = self._counts, {}
        used, self._key_uses = self._key_uses, {}
        try:
            while counts or used:
                some = dict(list(counts.items())[:MAX_ROWS_PER_FLUSH])
                keys = dict(list(used.items())[:MAX_ROWS_PER_FLUSH])
                await self._database.run(_write, some, keys)
                counts = {k: v for k, v in counts.items() if k not in some}
                used = {k: v for k, v in used.items() if k not in keys}
        except (Unavailable, SQLAlchemyError) as error:
            structlog.get_logger().warning("usage_not_written", error=type(error).__name__)
        for place, count in counts.items():
            self._add(place, count)
        self._key_uses = used | self._key_uses

    def _add(self, place: UsageKey, count: Count) -> None:
        known = self._counts.get(place)
        if known is not None:
            count = Count(known.requests + count.requests, known.texts + count.texts)
        elif len(self._counts) >= MAX_PENDING:
            self._dropped += count.requests
            return
        self._counts[place] = count


class _TextsRow(NamedTuple):
    id: uuid.UUID
    day: date
    texts: int

    @property
    def user_id(self) -> uuid.UUID:
        return self.id


class TextsToday:
    """How many texts of a user all processes have written for today."""

    def __init__(self, database: Database, revocations: Revocations):
        # Asked for when Redis has no count: by many requests at once, and then not again.
        self._users = RowCache(database, revocations, _read_today, timeout=0.25, fresh_seconds=1.0)

    async def get(self, user_id: uuid.UUID) -> int:
        """The number; raises `Unavailable` when nobody knows."""
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
    counted = {user_id: int(texts) for user_id, texts in session.execute(query)}
    for user_id in user_ids:
        yield _TextsRow(user_id, day, counted.get(user_id, 0))


def _write(
    session: Session, counts: Mapping[UsageKey, Count], used: Mapping[uuid.UUID, datetime]
) -> None:
    if counts:
        _upsert_counts(session, [(*place, *count) for place, count in counts.items()])
    if used:
        _update_last_used(session, used)


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
    # Of users that are gone nothing is counted; in one order, so that no two processes deadlock.
    known = (
        select(new)
        .join(User, User.id == new.c.user_id)
        .order_by(new.c.user_id, new.c.day, new.c.key_id, new.c.route)
    )
    statement = insert(UsageRow).from_select([c.name for c in new.c], known)
    session.execute(
        statement.on_conflict_do_update(
            constraint="pk_usage",
            set_={
                "requests": UsageRow.requests + statement.excluded.requests,
                "texts": UsageRow.texts + statement.excluded.texts,
            },
        )
    )


def _update_last_used(session: Session, used: Mapping[uuid.UUID, datetime]) -> None:
    """Say when keys were last used; a row that somebody else is writing gets it next time."""
    free = select(ApiKey.id).where(ApiKey.id.in_(used)).with_for_update(skip_locked=True)
    keys = session.scalars(free).all()
    if not keys:
        return
    new = values(column("id", Uuid), column("used_at", DateTime(timezone=True)), name="new").data(
        [(key_id, used[key_id]) for key_id in keys]
    )
    last = func.greatest(ApiKey.last_used_at, new.c.used_at)
    session.execute(
        update(ApiKey).where(ApiKey.id == new.c.id).values(last_used_at=last),
        execution_options={"synchronize_session": False},
    )
