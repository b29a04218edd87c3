"""Many texts, scored soon: handed in, then followed."""

import uuid

from fastapi import APIRouter, Request, Response

from valence_common.bodies import strict
from valence_common.web import API, DatabaseDep
from valence_inference import batches, scoring, webhooks
from valence_inference.api.parts import BatchOwner, MeterDep, RingerDep, SettingsDep, UsageDep
from valence_inference.meter import BATCH
from valence_inference.schemas import batches as schemas

router = APIRouter(prefix=API, route_class=strict("batch_body_bytes"), tags=["sentiment"])


@router.post("/sentiment/analyze/batch", status_code=202)
async def analyze_batch(
    request: Request,
    body: schemas.BatchRequest,
    principal: BatchOwner,
    database: DatabaseDep,
    ringer: RingerDep,
    meter: MeterDep,
    usage: UsageDep,
    settings: SettingsDep,
    response: Response,
) -> schemas.Accepted:
    """Take many texts; they are stored before the answer and scored soon after."""
    scoring.check_texts(
        body.texts, longest=settings.max_text_characters, most=settings.max_batch_texts
    )
    if body.webhook_url is not None:
        webhooks.check_url(
            body.webhook_url,
            enabled=settings.webhooks_enabled,
            allow_http=settings.webhooks_allow_http,
            allowed_networks=settings.webhooks_allowed_networks,
        )
    async with meter.batch(request, principal, len(body.texts)):
        batch = await database.run(
            batches.accept,
            principal.user_id,
            body.texts,
            chunk_texts=settings.chunk_texts,
            webhook_url=body.webhook_url,
        )
    usage.count(principal, BATCH, batch.total)
    await ringer.ring(batch.total // settings.chunk_texts + 1)
    response.headers["Location"] = f"{API}/sentiment/task/{batch.id}"
    return schemas.Accepted(task_id=batch.id, total=batch.total)


@router.get("/sentiment/task/{task_id}")
async def task(
    task_id: uuid.UUID, principal: BatchOwner, database: DatabaseDep, settings: SettingsDep
) -> schemas.Task:
    """How far a batch is; with its results once it has ended, if it is small."""
    status = await database.run(
        batches.status, principal.user_id, task_id, inline=settings.inline_results
    )
    return schemas.Task.of(status)
