"""The results of a batch, in pages or as one stream."""

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

DEFAULT_LIMIT: Final = 100
MEDIA_TYPES: Final = {"ndjson": "application/x-ndjson", "csv": "text/csv"}
GZIP_SUFFIX: Final = ".gzip"
"""The suffix of a compressed stream's ETag: its bytes differ, its rows do not."""

# A stream is resumed at a row, by `from`; byte ranges are not supported.
STREAM_HEADERS: Final = {"Vary": "Accept-Encoding", "Accept-Ranges": "none"}

_STREAMS: Final[dict[str, Any]] = {
    "application/x-ndjson": {
        "schema": {"type": "string", "description": "One item of the JSON page per line."}
    },
    "text/csv": {
        "schema": {
            "type": "string",
            "description": "RFC 4180: the original columns, then those of the answer.",
        }
    },
}

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "model": schemas.ResultPage,
        "content": _STREAMS,
        "headers": {
            "ETag": {
                "schema": {"type": "string"},
                "description": "Changes when the batch is retried; for `If-Match`.",
            }
        },
    }
}


@router.get("/sentiment/task/{task_id}/results", responses=_RESPONSES)
async def results(
    request: Request,
    task_id: uuid.UUID,
    principal: BatchOwner,
    database: DatabaseDep,
    download_limit: DownloadLimitDep,
    query: Annotated[schemas.ResultsQuery, Query()],
    if_match: Annotated[
        list[str] | None,
        Header(
            description="The `ETag` of an earlier response; 412 if the batch was retried since."
        ),
    ] = None,
) -> Response:
    """Get the results of a batch.

    The results are in the order of the texts. Before the batch has ended, the response is 409. To
    resume a stream that broke off, set `from` to the next index and `If-Match` to the `ETag` of the
    stream.
    """
    user_id, format_, versions = principal.user_id, query.format, _versions(if_match)
    if format_ == "json":
        start, limit = query.cursor or 0, query.limit or DEFAULT_LIMIT
        items, next_cursor, version = await database.run(
            export.read_page, user_id, task_id, start=start, limit=limit, versions=versions
        )
        page = msgspec.json.encode({"items": items, "next_cursor": next_cursor})
        return Response(page, media_type=JSON_TYPE, headers={"ETag": f'"{version}"'})
    with ExitStack() as slot:
        slot.enter_context(download_limit.slot(user_id))
        stream = export.ResultStream(
            database, user_id, task_id, format_, query.start or 0, versions
        )
        pieces, compressed = await stream.open(), accepts_gzip(request)
        etag = f'"{stream.version}{GZIP_SUFFIX if compressed else ""}"'
        return StreamedFile(
            pieces,
            f"{task_id}.{format_}",
            slot.pop_all(),
            compressed=compressed,
            media_type=MEDIA_TYPES[format_],
            headers={**STREAM_HEADERS, "ETag": etag},
        )


def _versions(if_match: list[str] | None) -> set[str] | None:
    """Return the versions that `If-Match` accepts (RFC 9110, section 13.1.1)."""
    if if_match is None:
        return None
    # Our versions contain no comma.
    tags = [tag.strip().strip('"') for line in if_match for tag in line.split(",")]
    return {tag.removesuffix(GZIP_SUFFIX) for tag in tags}
