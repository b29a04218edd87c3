"""Many texts, scored soon: followed and steered."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Request

from valence_common.web.app import API, DatabaseDep
from valence_common.web.request_body import strict
from valence_inference.api.dependencies import (
    BatchOwner,
    DoorbellDep,
    RequestLimiterDep,
    ScorerDep,
    SettingsDep,
    SummariesDep,
    UsageDep,
)
from valence_inference.batches import lifecycle
from valence_inference.batches import status as batch_status
from valence_inference.batches.status import BatchFilter
from valence_inference.metering.limits import BATCH
from valence_inference.schemas import batches as schemas
from valence_inference.schemas.summary import TaskSummary
from valence_inference.settings import MAX_BODY_BYTES

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["sentiment"])


@router.get("/sentiment/task/{task_id}")
async def task(
    task_id: uuid.UUID, principal: BatchOwner, database: DatabaseDep, settings: SettingsDep
) -> schemas.Task:
    """How far a batch is; with its results once it has ended, if it is small."""
    status = await database.run(
        batch_status.get_status, principal.user_id, task_id, max_inline=settings.inline_results
    )
    return schemas.Task.from_status(status)


@router.get("/sentiment/tasks")
async def tasks(
    principal: BatchOwner,
    database: DatabaseDep,
    query: Annotated[schemas.TasksQuery, Query()],
) -> schemas.TaskPage:
    """One's batches, newest first, without results; `next_cursor` leads to the page after."""
    only = BatchFilter(query.status, query.since, query.until)
    found, next_cursor = await database.run(
        batch_status.read_page, principal.user_id, only, limit=query.limit, cursor=query.cursor
    )
    items = [schemas.TaskItem.from_status(status) for status in found]
    return schemas.TaskPage(items=items, next_cursor=next_cursor)


@router.get("/sentiment/task/{task_id}/summary")
async def summary(
    task_id: uuid.UUID, principal: BatchOwner, summaries: SummariesDep, scorer: ScorerDep
) -> TaskSummary:
    """A batch in a few numbers, with the terms that decided most; also while it runs."""
    return TaskSummary.from_summary(await summaries.summarize(scorer, principal.user_id, task_id))


@router.post("/sentiment/task/{task_id}/cancel")
async def cancel(
    task_id: uuid.UUID, principal: BatchOwner, database: DatabaseDep, settings: SettingsDep
) -> schemas.Task:
    """End a batch before its time; what is done stays. Again it is the same; 409 if it has ended.

    It needs no worker, and no batch ends otherwise after it.
    """
    status = await database.run(
        lifecycle.cancel, principal.user_id, task_id, max_inline=settings.inline_results
    )
    return schemas.Task.from_status(status)


@router.post("/sentiment/task/{task_id}/retry")
async def retry(
    request: Request,
    task_id: uuid.UUID,
    principal: BatchOwner,
    database: DatabaseDep,
    ringer: DoorbellDep,
    meter: RequestLimiterDep,
    usage: UsageDep,
    settings: SettingsDep,
) -> schemas.Task:
    """Try the failed texts of a batch again; they count as texts of a new one do."""
    texts = await database.run(lifecycle.count_retriable, principal.user_id, task_id)
    async with meter.reserve_texts(request, principal, texts):
        status = await database.run(
            lifecycle.retry,
            principal.user_id,
            task_id,
            texts=texts,
            max_inline=settings.inline_results,
        )
    usage.count(principal, BATCH, texts)
    await ringer.ring(texts)
    return schemas.Task.from_status(status)


@router.delete("/sentiment/task/{task_id}", status_code=204)
async def delete(task_id: uuid.UUID, principal: BatchOwner, database: DatabaseDep) -> None:
    """Delete a batch with its texts and results, cancelled first if it runs; history stays."""
    await database.run(lifecycle.delete, principal.user_id, task_id)
