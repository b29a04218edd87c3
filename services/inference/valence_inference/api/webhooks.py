"""Webhooks: signing secrets, the log of deliveries, and redelivery."""

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
    """Create a signing secret.

    The secret is shown only in this response. An earlier secret signs for another 24 hours, along
    with the new one. At most five secrets are active; a further one replaces the oldest.
    """
    webhook_secrets.require_login(principal)
    secret, value = await database.run(webhook_secrets.create_secret, principal.user_id)
    return schemas.NewSecret(**secret._asdict(), secret=value)


@router.get("/webhooks/secret")
async def list_secrets(principal: BatchOwner, database: DatabaseDep) -> schemas.SecretPage:
    """List your signing secrets, newest first.

    Their values are not shown.
    """
    webhook_secrets.require_login(principal)
    secrets = await database.run(webhook_secrets.list_secrets, principal.user_id)
    return schemas.SecretPage(items=[schemas.Secret(**secret._asdict()) for secret in secrets])


@router.delete("/webhooks/secret", status_code=204)
async def end_secrets(principal: BatchOwner, database: DatabaseDep) -> None:
    """Delete your signing secrets.

    No webhook is sent until you create a new one.
    """
    webhook_secrets.require_login(principal)
    await database.run(webhook_secrets.delete_secrets, principal.user_id)


@router.get("/sentiment/task/{task_id}/deliveries")
async def list_deliveries(
    task_id: uuid.UUID,
    principal: BatchOwner,
    database: DatabaseDep,
    query: Annotated[PageQuery, Query()],
) -> schemas.DeliveryPage:
    """List the webhook deliveries of a batch, newest first.

    Each item has all attempts.
    """
    logs, next_cursor = await database.run(
        deliveries.read_page, principal.user_id, task_id, limit=query.limit, cursor=query.cursor
    )
    items = [schemas.Delivery.from_log(log) for log in logs]
    return schemas.DeliveryPage(items=items, next_cursor=next_cursor)


@router.post("/sentiment/task/{task_id}/deliveries/{delivery_id}/redeliver", status_code=202)
async def redeliver(
    task_id: uuid.UUID,
    delivery_id: uuid.UUID,
    principal: BatchOwner,
    database: DatabaseDep,
    settings: SettingsDep,
) -> schemas.Delivery:
    """Redeliver a webhook.

    Sends the same event as a new delivery. A batch can have ten deliveries per hour.
    """
    log = await database.run(
        deliveries.redeliver,
        principal.user_id,
        task_id,
        delivery_id,
        enabled=settings.webhooks_enabled,
    )
    return schemas.Delivery.from_log(log)
