"""What came of a batch's texts, in pages or as one stream."""

import uuid
from contextlib import ExitStack
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request, Response

from valence_common.bodies import JSON_TYPE, strict
from valence_common.downloads import Download, takes_gzip
from valence_common.web import API, DatabaseDep
from valence_inference import exports
from valence_inference.api.parts import BatchOwner, TurnsDep
from valence_inference.schemas import results as schemas

router = APIRouter(prefix=API, route_class=strict("analyze_body_bytes"), tags=["sentiment"])

PAGE: Final = 100
MEDIA_TYPES: Final = {"ndjson": "application/x-ndjson", "csv": "text/csv"}
VARY: Final = {"Vary": "Accept-Encoding"}

_STREAMS: Final[dict[str, Any]] = {
    "application/x-ndjson": {
        "schema": {"type": "string", "description": "One item of the JSON page a line."}
    },
    "text/csv": {
        "schema": {
            "type": "string",
            "description": "RFC 4180: the original columns, then the answer's.",
        }
    },
}


@router.get(
    "/sentiment/task/{task_id}/results",
    responses={200: {"model": schemas.ResultPage, "content": _STREAMS}},
)
async def results(
    request: Request,
    task_id: uuid.UUID,
    principal: BatchOwner,
    database: DatabaseDep,
    turns: TurnsDep,
    query: Annotated[schemas.ResultsQuery, Query()],
) -> Response:
    """The results of a batch that has ended, in the order of its texts; before, 409.

    A stream that breaks off has no proper end, and goes on with `from` at the next index.
    """
    user_id, form = principal.user_id, query.format
    if form == "json":
        place, most = query.cursor or 0, query.limit or PAGE
        found = await database.run(exports.page, user_id, task_id, start=place, limit=most)
        page = dict(zip(("items", "next_cursor"), found, strict=True))
        return Response(msgspec.json.encode(page), media_type=JSON_TYPE)
    with ExitStack() as turn:
        turn.enter_context(turns.take(user_id))
        stream = exports.Stream(database, user_id, task_id, form, query.start or 0)
        return Download(
            await stream.begin(),
            f"{task_id}.{form}",
            turn.pop_all(),
            compressed=takes_gzip(request),
            media_type=MEDIA_TYPES[form],
            headers=VARY,
        )
