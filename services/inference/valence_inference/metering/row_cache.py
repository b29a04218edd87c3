"""A cache of rows read from Postgres by id, invalidated by changes.

Concurrent reads share one query, and one query runs at a time. A flood of ids, real or invented,
therefore never holds more than one of the connections that requests share.
"""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from sqlalchemy.orm import Session

from valence_common.db import Database
from valence_common.problems import Unavailable
from valence_common.revocations import Revocations
from valence_common.timeouts import sliced_timeout

MAX_ROWS: Final = 10_000
FRESH_SECONDS: Final = 60.0
MISSING_SECONDS: Final = 10.0
"""For this long an id that has no row is not looked up again."""

STALE_SECONDS: Final = 600.0
"""A row may be served for this long while Postgres is unavailable."""

REFRESH_TIMEOUT_SECONDS: Final = 0.2
"""The timeout of a read that replaces a cached row; the cached row is served if it expires."""

UNAVAILABLE_SECONDS: Final = 1.0
"""After a failure no query is sent for this long."""


class OwnedRow(Protocol):
    """A row that belongs to a user; it may be the user's own row."""

    @property
    def id(self) -> uuid.UUID:
        """The key in the cache."""
        ...

    @property
    def user_id(self) -> uuid.UUID:
        """The owner; a change of the owner invalidates the row."""
        ...


R = TypeVar("R", bound=OwnedRow)
Read = Callable[[Session, Collection[uuid.UUID]], Iterable[R]]


class _Entry(NamedTuple, Generic[R]):
    row: R
    read_at: float


class RowCache(Generic[R]):
    """An LRU cache of rows by id; ids without a row are cached separately."""

    def __init__(
        self,
        database: Database,
        revocations: Revocations,
        read: Read[R],
        *,
        timeout: float,
        fresh_seconds: float = FRESH_SECONDS,
    ):
        """`timeout` is for reading a row that is not cached; a row is served without a query for
        `fresh_seconds`. Both are in seconds.
        """
        self._database = database
        self._read = read
        self._timeout = timeout
        self._fresh_seconds = fresh_seconds
        self._entries: OrderedDict[uuid.UUID, _Entry[R]] = OrderedDict()
        self._missing: OrderedDict[uuid.UUID, float] = OrderedDict()
        self._ids_of_user: dict[uuid.UUID, set[uuid.UUID]] = {}
        self._pending: set[uuid.UUID] = set()
        self._query_lock = asyncio.Lock()
        self._unavailable_until = 0.0
        self._generation = 0
        revocations.subscribe(self._invalidate)

    async def get(self, row_id: uuid.UUID) -> R | None:
        """Return the row, or None if there is none; raise `Unavailable` if that is not known."""
        entry = self._entries.get(row_id)
        if entry is not None and time.monotonic() - entry.read_at < self._fresh_seconds:
            self._entries.move_to_end(row_id)
            return entry.row
        if self._is_missing(row_id):
            return None
        try:
            await self._load(row_id, cached=entry is not None)
        except Unavailable:
            # The entry may have been invalidated during the wait.
            entry = self._entries.get(row_id)
            if entry is None or time.monotonic() - entry.read_at > STALE_SECONDS:
                raise
            return entry.row
        entry = self._entries.get(row_id)
        return None if entry is None else entry.row

    @property
    def unavailable(self) -> bool:
        """Whether Postgres failed to answer within the last `UNAVAILABLE_SECONDS`."""
        return time.monotonic() < self._unavailable_until

    def _is_missing(self, row_id: uuid.UUID) -> bool:
        return time.monotonic() < self._missing.get(row_id, 0.0)

    async def _load(self, row_id: uuid.UUID, *, cached: bool) -> None:
        """Read the row together with all other pending ids; raise `Unavailable`."""
        if self.unavailable:
            raise Unavailable("postgres")
        requested_at = time.monotonic()
        self._pending.add(row_id)
        timeout = REFRESH_TIMEOUT_SECONDS if cached else self._timeout
        try:
            await sliced_timeout(timeout, self._query_if_pending(row_id))
        except TimeoutError:
            if not cached:  # the short timeout of a refresh does not prove an outage
                self._unavailable_until = time.monotonic() + UNAVAILABLE_SECONDS
            raise Unavailable("postgres") from None
        except Unavailable:
            self._unavailable_until = time.monotonic() + UNAVAILABLE_SECONDS
            raise
        entry = self._entries.get(row_id)
        loaded = entry is not None and entry.read_at >= requested_at
        if not loaded and not self._is_missing(row_id):
            raise Unavailable("postgres")  # another request's query included this id and failed

    async def _query_if_pending(self, row_id: uuid.UUID) -> None:
        async with self._query_lock:
            if row_id in self._pending:
                await self._query()

    async def _query(self) -> None:
        ids, self._pending = self._pending, set()
        while True:
            generation = self._generation
            rows = {row.id: row for row in await self._database.run(self._read_all, ids)}
            if generation == self._generation:  # otherwise the rows may predate a change
                break
        for row_id in ids:
            self._store(row_id, rows.get(row_id))

    def _read_all(self, session: Session, ids: Collection[uuid.UUID]) -> list[R]:
        return list(self._read(session, ids))

    def _store(self, row_id: uuid.UUID, row: R | None) -> None:
        self._evict(row_id)
        if row is None:
            self._missing[row_id] = time.monotonic() + MISSING_SECONDS
            if len(self._missing) > MAX_ROWS:
                self._missing.popitem(last=False)
            return
        self._entries[row_id] = _Entry(row, time.monotonic())
        self._ids_of_user.setdefault(row.user_id, set()).add(row_id)
        if len(self._entries) > MAX_ROWS:
            self._evict(next(iter(self._entries)))

    def _evict(self, row_id: uuid.UUID) -> None:
        self._missing.pop(row_id, None)
        entry = self._entries.pop(row_id, None)
        if entry is not None:
            ids = self._ids_of_user[entry.row.user_id]
            ids.discard(row_id)
            if not ids:
                del self._ids_of_user[entry.row.user_id]

    def _invalidate(self, subject_id: uuid.UUID) -> None:
        """Drop a row that changed, or every row of a user that changed."""
        self._generation += 1
        for row_id in [subject_id, *self._ids_of_user.get(subject_id, ())]:
            self._evict(row_id)
