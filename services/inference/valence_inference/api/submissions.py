"""Many texts, handed in to be scored soon: as JSON, as a file, or as a form with one."""

import functools
import re
from collections import Counter
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from valence_common.problems import FieldError, Unprocessable
from valence_common.web.app import API, DatabaseDep
from valence_common.web.request_body import JSON_TYPE, StrictRequest, strict
from valence_inference.api.dependencies import (
    BatchOwner,
    DoorbellDep,
    RequestLimiterDep,
    SettingsDep,
    UploadMemoryDep,
    UsageDep,
)
from valence_inference.batches import submit, webhook_secrets
from valence_inference.metering.limits import BATCH
from valence_inference.schemas import submissions as schemas
from valence_inference.settings import MAX_BODY_BYTES, Settings
from valence_inference.uploads.multipart import REPEATED
from valence_inference.uploads.receive import FORM, receive
from valence_inference.uploads.upload import CSV, NDJSON

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["sentiment"])

KEY_HEADER: Final = "Idempotency-Key"
MAX_KEY_CHARACTERS: Final = 255

# RFC 8941, section 3.3.3: printable ASCII, in quotes where only quotes and backslashes are escaped.
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BARE = re.compile(r"[!#-~][ -~]*")

_FILE = {"type": "string", "format": "binary", "description": "CSV or NDJSON, by kind or name."}

BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "`docs/batches.md` says how each kind is read.",
    "content": {
        JSON_TYPE: {"schema": schemas.BatchRequest.model_json_schema()},
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
                    **schemas.BatchOptions.model_json_schema()["properties"],
                    "file": _FILE,
                },
            }
        },
    },
}

ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "description": "Stored; it will be scored",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "Where to follow it."},
            "Idempotent-Replayed": {
                "schema": {"type": "string", "enum": ["true"]},
                "description": "The batch was accepted before, by a request of the same key.",
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
            description="A name for this request, 1 to 255 printable ASCII characters, quoted or"
            " not: sent again within 24 hours it makes no second batch.",
        ),
    ] = None,
) -> str | None:
    """What the client calls its request, without the quotes that it may stand in."""
    values = request.headers.getlist(KEY_HEADER)
    if not values:
        return None
    quoted, bare = _QUOTED.fullmatch(values[0]), _BARE.fullmatch(values[0])
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else bare[0] if bare else ""
    if len(values) > 1 or not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        message = f"One key of 1 to {MAX_KEY_CHARACTERS} printable ASCII characters"
        raise Unprocessable([FieldError("header.idempotency-key", "key", message)])
    return key


def unrepeated_options(
    request: Request, options: Annotated[schemas.BatchOptions, Query()]
) -> schemas.BatchOptions:
    """The options in the query, of which each may be said once, as in a form."""
    said = Counter(name for name, _ in request.query_params.multi_items())
    if twice := [name for name in schemas.BatchOptions.model_fields if said[name] > 1]:
        raise Unprocessable([FieldError(f"query.{name}", REPEATED, "Said twice") for name in twice])
    return options


@router.post(
    "/sentiment/analyze/batch",
    status_code=202,
    responses=ANSWER,
    openapi_extra={"requestBody": BODY},
)
async def analyze_batch(
    request: StrictRequest,
    principal: BatchOwner,
    options: Annotated[schemas.BatchOptions, Depends(unrepeated_options)],
    key: Annotated[str | None, Depends(idempotency_key)],
    database: DatabaseDep,
    room: UploadMemoryDep,
    ringer: DoorbellDep,
    meter: RequestLimiterDep,
    usage: UsageDep,
    settings: SettingsDep,
    response: Response,
) -> schemas.Accepted:
    """Take many texts; they are stored before the answer and scored soon after."""
    _check(options.webhook_url, settings)
    charge = functools.partial(meter.reserve_texts, request, principal)
    with room.reserve(principal.user_id) as place:
        submission = await receive(request, options, settings, place)
        _check(submission.webhook_url, settings)
        receipt = await submit.submit(
            database, principal.user_id, submission, key=key, reserve_texts=charge
        )
    if receipt.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    else:
        usage.count(principal, BATCH, receipt.total)
        await ringer.ring(len(submission.chunks))
    response.headers["Location"] = f"{API}/sentiment/task/{receipt.batch_id}"
    return schemas.Accepted(task_id=receipt.batch_id, total=receipt.total)


def _check(webhook_url: str | None, settings: Settings) -> None:
    if webhook_url is not None:
        webhook_secrets.check_url(
            webhook_url,
            enabled=settings.webhooks_enabled,
            allow_http=settings.webhooks_allow_http,
            allowed_networks=settings.webhooks_allowed_networks,
        )
