"""Watching batches: how far each is, told as it changes, until it has ended.

One look each half second asks for all batches that anybody watches here. What is told depends on
the database alone, so any replica goes on where another stopped.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Collection, Iterator
from datetime import datetime
from typing import Final, NamedTuple

import structlog
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy import select
from sqlalchemy.orm import Session

from valence_common.db import Database
from valence_common.log import log_fields
from valence_common.models import TERMINAL, Batch
from valence_common.problems import Unavailable
from valence_inference.batches import status as batch_status
from valence_inference.batches.status import TaskNotFound
from valence_inference.live.connections import Connection
from valence_inference.reading import repeatable_read
from valence_inference.schemas.batches import Task
from valence_inference.schemas.streaming import Progress

POLL_SECONDS: Final = 0.5
BACKOFF_FACTOR: Final = 4  # a look that takes long is followed by a pause so many times as long
HEARTBEAT_SECONDS: Final = 15.0
RETRY_MS: Final = 1_000


class Snapshot(NamedTuple):
    """How far a batch is; `rate` is in texts per second, as its status says it."""

    status: str
    started_at: datetime | None
    total: int
    done: int
    failed: int
    rate: float | None

    @property
    def id(self) -> str:
        """What the event is called that tells this."""
        return event_id(self.done, self.failed, self.status, self.started_at)

    @property
    def ended(self) -> bool:
        """Whether nobody works on it any more."""
        return self.status in TERMINAL

    def described(self) -> Progress:
        """As it is told."""
        told = Progress(
            status=self.status,
            total=self.total,
            done=self.done,
            failed=self.failed,
            progress=self.done / self.total,
        )
        if self.rate is not None:
            told.rate = round(self.rate, 1)
            told.eta_seconds = batch_status.eta_seconds(self.total - self.done, self.rate)
        return told


def event_id(done: int, failed: int, status: str, started_at: datetime | None) -> str:
    """An event's id: what the database says, and nothing else.

    A batch that was tried again can end just as before: the time of its start, in milliseconds,
    tells the runs apart.
    """
    run = 0 if started_at is None else int(started_at.timestamp() * 1000)
    return f"{done}.{failed}.{status}.{run}"


class _Subscription:
    """A batch that streams watch: where it was when last looked at, or that it is gone.

    A stream has its own first look. Only one that began after that is news to it: an older one may
    know less, and nothing is told twice.
    """

    def __init__(self) -> None:
        self.streams: dict[Connection, float] = {}
        self.looked_at = float("-inf")
        self.point: Snapshot | None = None
        self.gone = False

    def update(self, point: Snapshot | None, looked_at: float) -> None:
        changed = point is None or self.point is None or point.id != self.point.id
        for stream, since in self.streams.items():
            if changed or self.looked_at < since <= looked_at:
                stream.notify()
        self.point, self.gone, self.looked_at = point, point is None, looked_at

    def news(self, stream: Connection) -> Snapshot | None:
        """Where the batch is, if that is news."""
        return self.point if self.streams[stream] <= self.looked_at else None


class ProgressFeed:
    """The batches that are watched in this process."""

    def __init__(self, database: Database):
        self._database = database
        self._watches: dict[uuid.UUID, _Subscription] = {}
        self._wanted = asyncio.Event()

    async def snapshot(self, user_id: uuid.UUID, task_id: uuid.UUID) -> Snapshot:
        """How far a user's batch is; raises `TaskNotFound`."""
        points = await self._database.run(_read, [task_id], user_id=user_id)
        if task_id not in points:
            raise TaskNotFound
        return points[task_id]

    async def events(
        self, stream: Connection, task_id: uuid.UUID, point: Snapshot, last_id: str | None
    ) -> AsyncIterator[bytes]:
        """The events of a batch that stands at `point`, for who knows the one called `last_id`.

        They end after the batch's end, when it is gone, and when the stream must end.
        """
        yield format_sse_event(retry=RETRY_MS)  # with the head, before there is anything to tell
        with self._watched(task_id, stream) as watch:
            while stream.close_reason is None and not watch.gone:
                point = watch.news(stream) or point
                patience = HEARTBEAT_SECONDS
                if point.ended:
                    end = await self._end(stream, task_id)
                    if end is not None:
                        yield end
                        return
                    patience = POLL_SECONDS
                elif point.id != last_id:
                    last_id = point.id
                    told = point.described().model_dump_json(exclude_none=True)
                    yield format_sse_event(event="progress", data_str=told, id=point.id)
                if not await stream.wait_for_change(patience) and patience == HEARTBEAT_SECONDS:
                    yield KEEPALIVE_COMMENT

    async def _end(self, stream: Connection, task_id: uuid.UUID) -> bytes | None:
        """The last event; None when nobody can say now, or when it goes on after all."""
        user_id = stream.principal.user_id
        try:
            status = await self._database.run(
                batch_status.get_status, user_id, task_id, max_inline=0
            )
        except (Unavailable, TaskNotFound):  # the next look tells which
            return None
        if status.batch.status not in TERMINAL:
            return None
        told = Task.from_status(status).model_dump_json(exclude={"results"})
        batch = status.batch
        name = event_id(status.done, status.failed, batch.status, batch.started_at)
        return format_sse_event(event="end", data_str=told, id=name)

    @contextlib.contextmanager
    def _watched(self, task_id: uuid.UUID, stream: Connection) -> Iterator[_Subscription]:
        watch = self._watches.setdefault(task_id, _Subscription())
        watch.streams[stream] = time.monotonic()
        self._wanted.set()
        try:
            yield watch
        finally:
            del watch.streams[stream]
            if not watch.streams:
                self._watches.pop(task_id, None)

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Look at what is watched, for as long as the block lasts."""
        task = asyncio.create_task(self._poll_forever())
        try:
            yield
        finally:
            task.cancel()

    async def _poll_forever(self) -> None:
        while True:
            await self._wanted.wait()
            started = time.monotonic()
            try:
                await self._poll()
            except Unavailable as error:
                structlog.get_logger().warning("unavailable", dependency=error.dependency)
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                structlog.get_logger().error("batches_not_read", **log_fields(error))
            if not self._watches:
                self._wanted.clear()
            await asyncio.sleep(max(POLL_SECONDS, BACKOFF_FACTOR * (time.monotonic() - started)))

    async def _poll(self) -> None:
        asked, looked_at = dict(self._watches), time.monotonic()
        points = await self._database.run(_read, list(asked)) if asked else {}
        for task_id, watch in asked.items():
            watch.update(points.get(task_id), looked_at)


def _read(
    session: Session, task_ids: Collection[uuid.UUID], *, user_id: uuid.UUID | None = None
) -> dict[uuid.UUID, Snapshot]:
    """How far these batches are, without those that are deleted or not the user's."""
    repeatable_read(session)
    query = select(Batch.id, Batch.status, Batch.started_at, Batch.total).where(
        Batch.id.in_(task_ids), Batch.deleted_at.is_(None)
    )
    if user_id is not None:
        query = query.where(Batch.user_id == user_id)
    found = session.execute(query).all()
    progress = batch_status.read_progress(session, [row.id for row in found])
    return {row.id: Snapshot(*row[1:], *progress[row.id]) for row in found}
