"""What was read from Postgres by id and is used for a while: until there is news of it.

Reads that come together are one query, and there is one at a time, so that a flood of ids, known
or made up, never holds more than one of the connections that requests share.
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

MOST: Final = 10_000
FRESH_SECONDS: Final = 60.0
UNKNOWN_SECONDS: Final = 10.0
STALE_SECONDS: Final = 600.0  # while Postgres is away
REFRESH_SECONDS: Final = 0.2  # who has an answer does not wait long for a newer one
AWAY_SECONDS: Final = 1.0  # after a failure nobody asks for so long


class Owned(Protocol):
    """A row that is found by its id and belongs to a user, who may be the row itself."""

    @property
    def id(self) -> uuid.UUID:
        """What it is asked for by."""
        ...

    @property
    def user_id(self) -> uuid.UUID:
        """Of whom there may be news."""
        ...


R = TypeVar("R", bound=Owned)
Read = Callable[[Session, Collection[uuid.UUID]], Iterable[R]]


class _Entry(NamedTuple, Generic[R]):
    row: R
    read_at: float


class Kept(Generic[R]):
    """Rows by id, those that do not exist included; the least used are forgotten first."""

    def __init__(
        self,
        database: Database,
        revocations: Revocations,
        read: Read[R],
        *,
        patience: float,
        fresh: float = FRESH_SECONDS,
    ):
        """`patience` is the longest wait for a row that is not known yet, `fresh` how long one is
        good without asking again, both in seconds.
        """
        self._database = database
        self._read = read
        self._patience = patience
        self._fresh = fresh
        self._known: OrderedDict[uuid.UUID, _Entry[R]] = OrderedDict()
        self._unknown: OrderedDict[uuid.UUID, float] = OrderedDict()
        self._of_user: dict[uuid.UUID, set[uuid.UUID]] = {}
        self._wanted: set[uuid.UUID] = set()
        self._one_query = asyncio.Lock()
        self._away_until = 0.0
        self._news = 0
        revocations.subscribe(self._drop)

    async def get(self, row_id: uuid.UUID) -> R | None:
        """The row, or None when there is none; raises `Unavailable` when that is not known."""
        entry = self._known.get(row_id)
        if entry is not None and time.monotonic() - entry.read_at < self._fresh:
            self._known.move_to_end(row_id)
            return entry.row
        if self._is_unknown(row_id):
            return None
        try:
            await self._load(row_id, known=entry is not None)
        except Unavailable:
            # News may have come while we waited: only what is still here is good.
            entry = self._known.get(row_id)
            if entry is None or time.monotonic() - entry.read_at > STALE_SECONDS:
                raise
            return entry.row
        entry = self._known.get(row_id)
        return None if entry is None else entry.row

    @property
    def away(self) -> bool:
        """Whether Postgres did not answer a moment ago."""
        return time.monotonic() < self._away_until

    def _is_unknown(self, row_id: uuid.UUID) -> bool:
        return time.monotonic() < self._unknown.get(row_id, 0.0)

    async def _load(self, row_id: uuid.UUID, *, known: bool) -> None:
        """Read the row, with all that others want by then; raises `Unavailable`."""
        if self.away:
            raise Unavailable("postgres")
        asked_at = time.monotonic()
        self._wanted.add(row_id)
        try:
            await sliced_timeout(REFRESH_SECONDS if known else self._patience, self._ask(row_id))
        except TimeoutError:
            if not known:  # a short wait for a newer answer proves little
                self._away_until = time.monotonic() + AWAY_SECONDS
            raise Unavailable("postgres") from None
        except Unavailable:
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise
        entry = self._known.get(row_id)
        answered = entry is not None and entry.read_at >= asked_at
        if not answered and not self._is_unknown(row_id):
            raise Unavailable("postgres")  # the query that ours went with failed

    async def _ask(self, row_id: uuid.UUID) -> None:
        async with self._one_query:
            if row_id in self._wanted:
                await self._query()

    async def _query(self) -> None:
        wanted, self._wanted = self._wanted, set()
        while True:
            news = self._news
            rows = {row.id: row for row in await self._database.run(self._all, wanted)}
            if news == self._news:  # else it may be older than the news
                break
        for row_id in wanted:
            self._keep(row_id, rows.get(row_id))

    def _all(self, session: Session, wanted: Collection[uuid.UUID]) -> list[R]:
        return list(self._read(session, wanted))

    def _keep(self, row_id: uuid.UUID, row: R | None) -> None:
        self._forget(row_id)
        if row is None:
            self._unknown[row_id] = time.monotonic() + UNKNOWN_SECONDS
            if len(self._unknown) > MOST:
                self._unknown.popitem(last=False)
            return
        self._known[row_id] = _Entry(row, time.monotonic())
        self._of_user.setdefault(row.user_id, set()).add(row_id)
        if len(self._known) > MOST:
            self._forget(next(iter(self._known)))

    def _forget(self, row_id: uuid.UUID) -> None:
        self._unknown.pop(row_id, None)
        entry = self._known.pop(row_id, None)
        if entry is not None:
            others = self._of_user[entry.row.user_id]
            others.discard(row_id)
            if not others:
                del self._of_user[entry.row.user_id]

    def _drop(self, subject_id: uuid.UUID) -> None:
        """There is news of a row or a user: read again what is known of it."""
        self._news += 1
        for row_id in [subject_id, *self._of_user.get(subject_id, ())]:
            self._forget(row_id)
