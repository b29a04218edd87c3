"""The progress of a batch as Server-Sent Events."""

import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from valence_common.web.app import API
from valence_common.web.request_body import strict
from valence_common.web.state import request_state
from valence_inference.api.dependencies import ProgressConnection, ProgressFeedDep
from valence_inference.batches.status import eta_seconds
from valence_inference.live.progress import End, Snapshot, Update
from valence_inference.schemas.batches import Task
from valence_inference.schemas.streaming import Progress
from valence_inference.settings import MAX_BODY_BYTES

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["sentiment"])

RETRY_MILLISECONDS: Final = 1_000
"""How long a client waits before it reconnects."""


class EventStream(StreamingResponse):
    """A response of Server-Sent Events."""

    media_type = "text/event-stream"


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "A `progress` event for each change, and at the end `end` with the task",
        "content": {EventStream.media_type: {"schema": {"type": "string"}}},
    },
    204: {"description": "The client has received the last event; there is nothing more to send"},
}


@router.get("/sentiment/task/{task_id}/events", response_class=EventStream, responses=_RESPONSES)
async def events(
    request: Request,
    task_id: uuid.UUID,
    connection: ProgressConnection,
    feed: ProgressFeedDep,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Stream the progress of a batch.

    The stream ends with the batch. `Last-Event-ID` resumes an earlier stream.
    """
    snapshot = await feed.snapshot(connection.principal.user_id, task_id)
    if snapshot.ended and snapshot.id == last_event_id:
        return Response(status_code=204)
    request_state(request.scope).untimed = True
    updates = feed.updates(connection, task_id, snapshot, last_event_id)
    # nginx must not buffer the events.
    return EventStream(format_events(updates), headers={"X-Accel-Buffering": "no"})


async def format_events(updates: AsyncGenerator[Update, None]) -> AsyncIterator[bytes]:
    """Format updates as events; the first one sends the headers before there is an update."""
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    async with contextlib.aclosing(updates):
        async for update in updates:
            yield _format_event(update)


def _format_event(update: Update) -> bytes:
    if isinstance(update, End):
        data = Task.from_status(update.status).model_dump_json(exclude={"results"})
        return format_sse_event(event="end", data_str=data, id=update.id)
    if isinstance(update, Snapshot):
        data = _progress(update).model_dump_json(exclude_none=True)
        return format_sse_event(event="progress", data_str=data, id=update.id)
    return KEEPALIVE_COMMENT


def _progress(snapshot: Snapshot) -> Progress:
    progress = Progress(
        status=snapshot.status,
        total=snapshot.total,
        done=snapshot.done,
        failed=snapshot.failed,
        progress=snapshot.done / snapshot.total,
    )
    if snapshot.rate is not None:
        progress.rate = round(snapshot.rate, 1)
        progress.eta_seconds = eta_seconds(snapshot.total - snapshot.done, snapshot.rate)
    return progress
