"""The webhook deliveries of a batch as its owner sees them, and redelivery."""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from valence_common.db import new_id
from valence_common.models import WebhookAttempt, WebhookDelivery
from valence_common.problems import Conflict, NotFound, TooManyRequests
from valence_common.web import pagination
from valence_inference.batches import status

MAX_PER_HOUR: Final = 10
HOUR: Final = timedelta(hours=1)


class DeliveryNotFound(NotFound):
    """The batch has no delivery with that id."""

    detail = "Delivery not found"


class WebhooksDisabled(Conflict):
    """This installation sends no webhooks."""

    detail = "Webhooks are not enabled here"


@dataclass(frozen=True)
class DeliveryLog:
    """A delivery with its attempts, oldest first."""

    delivery: WebhookDelivery
    attempts: Sequence[WebhookAttempt]


def read_page(
    session: Session,
    user_id: uuid.UUID,
    task_id: uuid.UUID,
    *,
    limit: int,
    cursor: uuid.UUID | None,
) -> tuple[list[DeliveryLog], uuid.UUID | None]:
    """Return up to `limit` deliveries of a batch, newest first, and the next cursor."""
    status.find(session, user_id, task_id)
    conditions = [WebhookDelivery.batch_id == task_id]
    deliveries, next_cursor = pagination.newest_first(
        session, WebhookDelivery, conditions, limit=limit, cursor=cursor
    )
    attempts = defaultdict(list)
    in_page = WebhookAttempt.delivery_id.in_([delivery.id for delivery in deliveries])
    query = select(WebhookAttempt).where(in_page).order_by(WebhookAttempt.id)
    for attempt in session.scalars(query):
        attempts[attempt.delivery_id].append(attempt)
    return [DeliveryLog(delivery, attempts[delivery.id]) for delivery in deliveries], next_cursor


def redeliver(
    session: Session,
    user_id: uuid.UUID,
    task_id: uuid.UUID,
    delivery_id: uuid.UUID,
    *,
    enabled: bool,
) -> DeliveryLog:
    """Queue the event of a delivery again, as a new delivery; the old one stays in the log.

    Raises `TooManyRequests` if the batch has `MAX_PER_HOUR` deliveries from the last hour.
    """
    status.find(session, user_id, task_id, lock=True)
    old = session.get(WebhookDelivery, delivery_id)
    if old is None or old.batch_id != task_id:
        raise DeliveryNotFound
    if not enabled:
        raise WebhooksDisabled
    # The time until the newest delivery but `MAX_PER_HOUR - 1` is an hour old.
    retry_after = session.scalar(
        select(func.extract("epoch", WebhookDelivery.created_at + HOUR - func.now()))
        .where(WebhookDelivery.batch_id == task_id)
        .order_by(WebhookDelivery.created_at.desc())
        .offset(MAX_PER_HOUR - 1)
        .limit(1)
    )
    if retry_after is not None and retry_after > 0:
        raise TooManyRequests(int(retry_after) + 1)
    new = WebhookDelivery(
        id=new_id(),
        batch_id=task_id,
        user_id=user_id,
        event=old.event,
        done=old.done,
        failed=old.failed,
        started_at=old.started_at,
        ended_at=old.ended_at,
    )
    session.add(new)
    session.flush()
    return DeliveryLog(new, [])
