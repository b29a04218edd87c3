"""How far a batch is, told as it changes: Server-Sent Events."""

import uuid
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from valence_common.web.app import API
from valence_common.web.request_body import strict
from valence_common.web.state import request_state
from valence_inference.api.dependencies import ProgressConnection, ProgressFeedDep
from valence_inference.settings import MAX_BODY_BYTES

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["sentiment"])


class EventStream(StreamingResponse):
    """Events as they come; nginx buffers nothing of them."""

    media_type = "text/event-stream"


_EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "`progress` whenever it changed, and at last `end` with the task",
        "content": {EventStream.media_type: {"schema": {"type": "string"}}},
    },
    204: {"description": "The client knows the end: nothing will come"},
}


@router.get("/sentiment/task/{task_id}/events", response_class=EventStream, responses=_EVENTS)
async def events(
    request: Request,
    task_id: uuid.UUID,
    stream: ProgressConnection,
    watching: ProgressFeedDep,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Follow a batch to its end; `Last-Event-ID` goes on where another stream stopped."""
    point = await watching.snapshot(stream.principal.user_id, task_id)
    if point.ended and point.id == last_event_id:
        return Response(status_code=204)
    request_state(request.scope).untimed = True
    told = watching.events(stream, task_id, point, last_event_id)
    return EventStream(told, headers={"X-Accel-Buffering": "no"})
