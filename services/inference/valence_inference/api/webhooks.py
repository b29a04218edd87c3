"""Webhooks: the secrets that sign them, how each went, and sending one again."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query

from valence_common.web.app import API, DatabaseDep
from valence_common.web.pagination import PageQuery
from valence_common.web.request_body import strict
from valence_inference.api.dependencies import BatchOwner, SettingsDep
from valence_inference.batches import deliveries, webhook_secrets
from valence_inference.schemas import webhooks as schemas
from valence_inference.settings import MAX_BODY_BYTES

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["webhooks"])


@router.post("/webhooks/secret", status_code=201)
async def make_secret(principal: BatchOwner, database: DatabaseDep) -> schemas.NewSecret:
    """Make the secret that signs your webhooks; the answer is the only place that ever shows it.

    If there is one, it signs beside the new one for 24 hours more; at most five sign at a time.
    """
    webhook_secrets.require_login(principal)
    made, value = await database.run(webhook_secrets.create_secret, principal.user_id)
    return schemas.NewSecret(**made._asdict(), secret=value)


@router.get("/webhooks/secret")
async def list_secrets(principal: BatchOwner, database: DatabaseDep) -> schemas.SecretPage:
    """The secrets that sign your webhooks, newest first, without their values."""
    webhook_secrets.require_login(principal)
    found = await database.run(webhook_secrets.list_secrets, principal.user_id)
    return schemas.SecretPage(items=[schemas.Secret(**each._asdict()) for each in found])


@router.delete("/webhooks/secret", status_code=204)
async def end_secrets(principal: BatchOwner, database: DatabaseDep) -> None:
    """End your secrets; nothing is sent until there is a new one."""
    webhook_secrets.require_login(principal)
    await database.run(webhook_secrets.delete_secrets, principal.user_id)


@router.get("/sentiment/task/{task_id}/deliveries")
async def list_deliveries(
    task_id: uuid.UUID,
    principal: BatchOwner,
    database: DatabaseDep,
    query: Annotated[PageQuery, Query()],
) -> schemas.DeliveryPage:
    """What a batch's webhook was told, newest first, with every attempt."""
    found, next_cursor = await database.run(
        deliveries.read_page, principal.user_id, task_id, limit=query.limit, cursor=query.cursor
    )
    items = [schemas.Delivery.from_log(log) for log in found]
    return schemas.DeliveryPage(items=items, next_cursor=next_cursor)


@router.post("/sentiment/task/{task_id}/deliveries/{delivery_id}/redeliver", status_code=202)
async def redeliver(
    task_id: uuid.UUID,
    delivery_id: uuid.UUID,
    principal: BatchOwner,
    database: DatabaseDep,
    settings: SettingsDep,
) -> schemas.Delivery:
    """Send the event of a delivery again, as a delivery of its own; at most ten in an hour."""
    made = await database.run(
        deliveries.redeliver,
        principal.user_id,
        task_id,
        delivery_id,
        enabled=settings.webhooks_enabled,
    )
    return schemas.Delivery.from_log(made)
