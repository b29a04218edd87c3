"""Submission of batches: as JSON, as a file, or as a form with a file."""

import functools
import re
from collections import Counter
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from valence_common.problems import FieldError, Unprocessable
from valence_common.web.app import API
from valence_common.web.request_body import JSON_TYPE, StrictRequest, strict
from valence_inference.api.dependencies import BatchOwner, ResourcesDep
from valence_inference.batches.submit import AlreadySubmitted, submit
from valence_inference.metering.limits import BATCH
from valence_inference.schemas import submissions as schemas
from valence_inference.settings import MAX_BODY_BYTES
from valence_inference.uploads.multipart import REPEATED
from valence_inference.uploads.options import BatchOptions, BatchRequest
from valence_inference.uploads.receive import FORM, receive
from valence_inference.uploads.upload import CSV, NDJSON

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["sentiment"])

KEY_HEADER: Final = "Idempotency-Key"
MAX_KEY_CHARACTERS: Final = 255

# RFC 8941, section 3.3.3: printable ASCII; within quotes only quotes and backslashes are escaped.
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BARE = re.compile(r"[!#-~][ -~]*")

_FILE = {
    "type": "string",
    "format": "binary",
    "description": "CSV or NDJSON, by content type or file name.",
}

_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "See `docs/batches.md` for how each media type is read.",
    "content": {
        JSON_TYPE: {"schema": BatchRequest.model_json_schema()},
        CSV: {
            "schema": {"type": "string"},
            "example": 'id,text\n1,"I love this product!"\n2,"Terrible, very disappointed."\n',
        },
        NDJSON: {
            "schema": {"type": "string"},
            "example": '{"id": 1, "text": "I love this product!"}\n"Terrible."\n',
        },
        FORM: {
            "schema": {
                "type": "object",
                "required": ["file"],
                "additionalProperties": False,
                "properties": {
                    **BatchOptions.model_json_schema()["properties"],
                    "file": _FILE,
                },
            }
        },
    },
}

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "description": "The batch was stored and will be scored",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "The status of the batch."},
            "Idempotent-Replayed": {
                "schema": {"type": "string", "enum": ["true"]},
                "description": "The batch was stored by an earlier request with the same key.",
            },
        },
    }
}


def idempotency_key(
    request: Request,
    _documented: Annotated[
        str | None,
        Header(
            alias=KEY_HEADER,
            description="A key for this request: 1 to 255 printable ASCII characters, quoted or"
            " not. Repeating the request with the same key within 24 hours creates no second"
            " batch.",
        ),
    ] = None,
) -> str | None:
    """Return the idempotency key of the request without its quotes, or None."""
    values = request.headers.getlist(KEY_HEADER)
    if not values:
        return None
    quoted, bare = _QUOTED.fullmatch(values[0]), _BARE.fullmatch(values[0])
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else bare[0] if bare else ""
    if len(values) > 1 or not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        message = f"One key of 1 to {MAX_KEY_CHARACTERS} printable ASCII characters"
        raise Unprocessable([FieldError("header.idempotency-key", "key", message)])
    return key


def unrepeated_options(request: Request, options: Annotated[BatchOptions, Query()]) -> BatchOptions:
    """Return the options in the query; reject repeated ones, as in a form."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    if repeated := [name for name in BatchOptions.model_fields if counts[name] > 1]:
        message = "Given more than once"
        raise Unprocessable([FieldError(f"query.{name}", REPEATED, message) for name in repeated])
    return options


@router.post(
    "/sentiment/analyze/batch",
    status_code=202,
    responses=_RESPONSES,
    openapi_extra={"requestBody": _BODY},
)
async def analyze_batch(
    request: StrictRequest,
    principal: BatchOwner,
    options: Annotated[BatchOptions, Depends(unrepeated_options)],
    key: Annotated[str | None, Depends(idempotency_key)],
    resources: ResourcesDep,
    response: Response,
) -> schemas.Accepted:
    """Submit a batch of texts.

    The batch is stored before the response is sent, and scored soon after.
    """
    user_id = principal.user_id
    with resources.upload_memory.reserve(user_id) as reservation:
        submission = await receive(request, options, resources.settings, reservation)
        outcome = await submit(
            resources.database,
            user_id,
            submission,
            key=key,
            reserve_texts=functools.partial(resources.meter.reserve_texts, request, principal),
        )
    if isinstance(outcome, AlreadySubmitted):
        response.headers["Idempotent-Replayed"] = "true"
    else:
        resources.usage.count(principal, BATCH, outcome.total)
        await resources.doorbell.ring(len(submission.chunks))
    response.headers["Location"] = f"{API}/sentiment/task/{outcome.batch_id}"
    return schemas.Accepted(task_id=outcome.batch_id, total=outcome.total)
