"""Many texts, scored soon: followed."""

import uuid

from fastapi import APIRouter

from valence_common.bodies import strict
from valence_common.web import API, DatabaseDep
from valence_inference import batches
from valence_inference.api.parts import BatchOwner, SettingsDep
from valence_inference.schemas import batches as schemas

router = APIRouter(prefix=API, route_class=strict("batch_body_bytes"), tags=["sentiment"])


@router.get("/sentiment/task/{task_id}")
async def task(
    task_id: uuid.UUID, principal: BatchOwner, database: DatabaseDep, settings: SettingsDep
) -> schemas.Task:
    """How far a batch is; with its results once it has ended, if it is small."""
    status = await database.run(
        batches.status, principal.user_id, task_id, inline=settings.inline_results
    )
    return schemas.Task.of(status)
