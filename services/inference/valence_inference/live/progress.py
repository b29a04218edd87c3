"""Live progress of batches: one poll for all subscribed batches, and an update for each change.

A poll every half second reads all batches that a connection of this process has subscribed to.
Updates and their ids depend on the database alone, so a client can resume at any replica.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator
from datetime import datetime
from typing import Final, NamedTuple

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from valence_common.db import Database
from valence_common.log import log_fields
from valence_common.models import TERMINAL, Batch
from valence_common.postgres import repeatable_read
from valence_common.problems import Unavailable
from valence_inference.batches import status as batch_status
from valence_inference.batches.status import Status, TaskNotFound
from valence_inference.live.connections import Connection

POLL_SECONDS: Final = 0.5
BACKOFF_FACTOR: Final = 4
"""A slow poll is followed by a pause of this many times its duration."""

HEARTBEAT_SECONDS: Final = 15.0


class Snapshot(NamedTuple):
    """The progress of a batch at one moment; `rate` is in texts per second."""

    status: str
    started_at: datetime | None
    total: int
    done: int
    failed: int
    rate: float | None

    @property
    def id(self) -> str:
        """The id of the update with this snapshot."""
        return _update_id(self.done, self.failed, self.status, self.started_at)

    @property
    def ended(self) -> bool:
        """Whether the batch has ended."""
        return self.status in TERMINAL


class End(NamedTuple):
    """The last update: the status of a batch that has ended."""

    status: Status

    @property
    def id(self) -> str:
        """The id of the update; equal to that of a snapshot with the same progress."""
        status, batch = self.status, self.status.batch
        return _update_id(status.done, status.failed, batch.status, batch.started_at)


HEARTBEAT: Final = None
"""Yielded after `HEARTBEAT_SECONDS` without an update."""

Update = Snapshot | End | None


def _update_id(done: int, failed: int, status: str, started_at: datetime | None) -> str:
    """Return the id of an update, computed from the database's values alone.

    A retried batch can end just as before; the time of its start, in milliseconds, tells the runs
    apart.
    """
    run = 0 if started_at is None else int(started_at.timestamp() * 1000)
    return f"{done}.{failed}.{status}.{run}"


class _Subscription:
    """A batch with its subscribed connections, and the result of the last poll.

    Each connection has read a first snapshot itself. A poll that began before that may know less,
    so its result is not new to the connection, and no connection gets an update twice.
    """

    def __init__(self) -> None:
        self.subscribed_at: dict[Connection, float] = {}
        self.polled_at = float("-inf")
        self.snapshot: Snapshot | None = None
        self.deleted = False

    def update(self, snapshot: Snapshot | None, polled_at: float) -> None:
        """Store the result of a poll (None: no such batch), and notify those it is new to."""
        changed = snapshot is None or self.snapshot is None or snapshot.id != self.snapshot.id
        for connection, subscribed_at in self.subscribed_at.items():
            if changed or self.polled_at < subscribed_at <= polled_at:
                connection.notify()
        self.snapshot, self.deleted, self.polled_at = snapshot, snapshot is None, polled_at

    def new_snapshot(self, connection: Connection) -> Snapshot | None:
        """Return the last snapshot if it was polled after the connection subscribed."""
        return self.snapshot if self.subscribed_at[connection] <= self.polled_at else None


class ProgressFeed:
    """The progress of all batches that connections of this process have subscribed to."""

    def __init__(self, database: Database):
        self._database = database
        self._subscriptions: dict[uuid.UUID, _Subscription] = {}
        self._subscribed = asyncio.Event()

    async def snapshot(self, user_id: uuid.UUID, task_id: uuid.UUID) -> Snapshot:
        """Read the progress of a user's batch; raise `TaskNotFound`."""
        snapshots = await self._database.run(_read, [task_id], user_id=user_id)
        if task_id not in snapshots:
            raise TaskNotFound
        return snapshots[task_id]

    async def updates(
        self, connection: Connection, task_id: uuid.UUID, snapshot: Snapshot, last_id: str | None
    ) -> AsyncGenerator[Update, None]:
        """Yield the updates of a batch after the one with `last_id`, beginning with `snapshot`.

        Ends after the batch's `End`, when the batch is deleted, or when the connection must close.
        """
        with self._subscribe(task_id, connection) as subscription:
            while connection.close_reason is None and not subscription.deleted:
                snapshot = subscription.new_snapshot(connection) or snapshot
                timeout = HEARTBEAT_SECONDS
                if snapshot.ended:
                    end = await self._read_end(connection, task_id)
                    if end is not None:
                        yield end
                        return
                    timeout = POLL_SECONDS
                elif snapshot.id != last_id:
                    last_id = snapshot.id
                    yield snapshot
                if not await connection.wait_for_change(timeout) and timeout == HEARTBEAT_SECONDS:
                    yield HEARTBEAT

    async def _read_end(self, connection: Connection, task_id: uuid.UUID) -> End | None:
        """Read the last update; None if the read fails, or the batch was retried meanwhile."""
        user_id = connection.principal.user_id
        try:
            status = await self._database.run(
                batch_status.get_status, user_id, task_id, max_inline=0
            )
        except (Unavailable, TaskNotFound):  # the next poll shows which
            return None
        return End(status) if status.batch.status in TERMINAL else None

    @contextlib.contextmanager
    def _subscribe(self, task_id: uuid.UUID, connection: Connection) -> Iterator[_Subscription]:
        subscription = self._subscriptions.setdefault(task_id, _Subscription())
        subscription.subscribed_at[connection] = time.monotonic()
        self._subscribed.set()
        try:
            yield subscription
        finally:
            del subscription.subscribed_at[connection]
            if not subscription.subscribed_at:
                self._subscriptions.pop(task_id, None)

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Poll the subscribed batches for the duration of the block."""
        task = asyncio.create_task(self._poll_forever())
        try:
            yield
        finally:
            task.cancel()

    async def _poll_forever(self) -> None:
        while True:
            await self._subscribed.wait()
            started = time.monotonic()
            try:
                await self._poll()
            except Unavailable as error:
                structlog.get_logger().warning("unavailable", dependency=error.dependency)
            except Exception as error:  # noqa: BLE001 - the next poll may succeed
                structlog.get_logger().error("batches_not_read", **log_fields(error))
            if not self._subscriptions:
                self._subscribed.clear()
            await asyncio.sleep(max(POLL_SECONDS, BACKOFF_FACTOR * (time.monotonic() - started)))

    async def _poll(self) -> None:
        subscriptions, polled_at = dict(self._subscriptions), time.monotonic()
        if not subscriptions:
            return
        snapshots = await self._database.run(_read, list(subscriptions))
        for task_id, subscription in subscriptions.items():
            subscription.update(snapshots.get(task_id), polled_at)


def _read(
    session: Session, task_ids: Collection[uuid.UUID], *, user_id: uuid.UUID | None = None
) -> dict[uuid.UUID, Snapshot]:
    """Return snapshots of these batches, without deleted ones and those of other users."""
    repeatable_read(session)
    query = select(Batch.id, Batch.status, Batch.started_at, Batch.total).where(
        Batch.id.in_(task_ids), Batch.deleted_at.is_(None)
    )
    if user_id is not None:
        query = query.where(Batch.user_id == user_id)
    rows = session.execute(query).all()
    progress = batch_status.read_progress(session, [row.id for row in rows])
    return {row.id: Snapshot(*row[1:], *progress[row.id]) for row in rows}
