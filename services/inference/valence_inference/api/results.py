"""What came of a batch's texts, in pages or as one stream."""

import uuid
from contextlib import ExitStack
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response

from valence_common.web.app import API, DatabaseDep
from valence_common.web.request_body import JSON_TYPE, strict
from valence_common.web.streaming import StreamedFile, accepts_gzip
from valence_inference.api.dependencies import BatchOwner, DownloadLimitDep
from valence_inference.batches import export
from valence_inference.schemas import results as schemas
from valence_inference.settings import MAX_BODY_BYTES

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["sentiment"])

PAGE: Final = 100
MEDIA_TYPES: Final = {"ndjson": "application/x-ndjson", "csv": "text/csv"}
GZIPPED: Final = ".gzip"
"""What ends the tag of a compressed stream: its bytes are others, its rows are not."""

# Rows are the unit of a range, and `from` is how one is asked for.
STREAM_HEADERS: Final = {"Vary": "Accept-Encoding", "Accept-Ranges": "none"}

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

_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": schemas.ResultPage,
        "content": _STREAMS,
        "headers": {
            "ETag": {
                "schema": {"type": "string"},
                "description": "Stays until the batch is tried again; for `If-Match`.",
            }
        },
    }
}


@router.get("/sentiment/task/{task_id}/results", responses=_ANSWER)
async def results(
    request: Request,
    task_id: uuid.UUID,
    principal: BatchOwner,
    database: DatabaseDep,
    turns: DownloadLimitDep,
    query: Annotated[schemas.ResultsQuery, Query()],
    if_match: Annotated[
        list[str] | None,
        Header(
            description="The `ETag` of what was read before: 412 if the batch ended anew since."
        ),
    ] = None,
) -> Response:
    """The results of a batch that has ended, in the order of its texts; before, 409.

    A stream that breaks off has no proper end, and goes on with `from` at the next index and its
    `ETag` in `If-Match`.
    """
    user_id, form, known = principal.user_id, query.format, _versions(if_match)
    if form == "json":
        place, most = query.cursor or 0, query.limit or PAGE
        items, following, version = await database.run(
            export.read_page, user_id, task_id, start=place, limit=most, versions=known
        )
        page = msgspec.json.encode({"items": items, "next_cursor": following})
        return Response(page, media_type=JSON_TYPE, headers={"ETag": f'"{version}"'})
    with ExitStack() as turn:
        turn.enter_context(turns.slot(user_id))
        stream = export.ResultStream(database, user_id, task_id, form, query.start or 0, known)
        pieces, zipped = await stream.open(), accepts_gzip(request)
        tag = f'"{stream.version}{GZIPPED if zipped else ""}"'
        return StreamedFile(
            pieces,
            f"{task_id}.{form}",
            turn.pop_all(),
            compressed=zipped,
            media_type=MEDIA_TYPES[form],
            headers={**STREAM_HEADERS, "ETag": tag},
        )


def _versions(if_match: list[str] | None) -> set[str] | None:
    """The versions of which one must still be (RFC 9110, section 13.1.1); ours hold no comma."""
    if if_match is None:
        return None
    tags = [tag.strip().strip('"') for line in if_match for tag in line.split(",")]
    return {tag.removesuffix(GZIPPED) for tag in tags}
