"""Status, summary, cancellation, retry and deletion of batches."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Request

from valence_common.web.app import API, DatabaseDep
from valence_common.web.request_body import strict
from valence_inference.api.dependencies import (
    BatchOwner,
    ResourcesDep,
    ScorerDep,
    SettingsDep,
    SummariesDep,
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
    """Get the status of a batch.

    A small batch that has ended also has its results.
    """
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
    """List your batches, newest first.

    The items have no results.
    """
    filter_ = BatchFilter(query.status, query.since, query.until)
    statuses, next_cursor = await database.run(
        batch_status.read_page, principal.user_id, filter_, limit=query.limit, cursor=query.cursor
    )
    items = [schemas.TaskItem.from_status(status) for status in statuses]
    return schemas.TaskPage(items=items, next_cursor=next_cursor)


@router.get("/sentiment/task/{task_id}/summary")
async def summary(
    task_id: uuid.UUID, principal: BatchOwner, summaries: SummariesDep, scorer: ScorerDep
) -> TaskSummary:
    """Summarize a batch.

    The summary has counts, a histogram of confidence, and the most influential terms. While the
    batch is running, the summary covers its finished part.
    """
    return TaskSummary.from_summary(await summaries.summarize(scorer, principal.user_id, task_id))


@router.post("/sentiment/task/{task_id}/cancel")
async def cancel(
    task_id: uuid.UUID, principal: BatchOwner, database: DatabaseDep, settings: SettingsDep
) -> schemas.Task:
    """Cancel a batch.

    The results so far are kept, and the status of the batch no longer changes. Cancelling twice
    gives the same answer; a batch that has ended otherwise cannot be cancelled (409).
    """
    status = await database.run(
        lifecycle.cancel, principal.user_id, task_id, max_inline=settings.inline_results
    )
    return schemas.Task.from_status(status)


@router.post("/sentiment/task/{task_id}/retry")
async def retry(
    request: Request, task_id: uuid.UUID, principal: BatchOwner, resources: ResourcesDep
) -> schemas.Task:
    """Retry the failed texts of a batch.

    They count against the daily quota like the texts of a new batch.
    """
    database = resources.database
    texts = await database.run(lifecycle.count_retriable, principal.user_id, task_id)
    async with resources.meter.reserve_texts(request, principal, texts):
        status = await database.run(
            lifecycle.retry,
            principal.user_id,
            task_id,
            texts=texts,
            max_inline=resources.settings.inline_results,
        )
    resources.usage.count(principal, BATCH, texts)
    await resources.doorbell.ring(texts)
    return schemas.Task.from_status(status)


@router.delete("/sentiment/task/{task_id}", status_code=204)
async def delete(task_id: uuid.UUID, principal: BatchOwner, database: DatabaseDep) -> None:
    """Delete a batch.

    Deletes its texts and results; a running batch is cancelled first. The history is not affected.
    """
    await database.run(lifecycle.delete, principal.user_id, task_id)
