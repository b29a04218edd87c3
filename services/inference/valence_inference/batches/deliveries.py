"""Deliveries of a batch's webhooks as its owner sees them: the log, and sending once more."""

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
    """The batch has no delivery of that id."""

    detail = "Delivery not found"


class WebhooksDisabled(Conflict):
    """Nobody would send it."""

    detail = "Webhooks are not enabled here"


@dataclass(frozen=True)
class DeliveryLog:
    """A delivery with its attempts, first to last."""

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
    """Up to `limit` deliveries of a batch, newest first, and where the next page begins."""
    status.find(session, user_id, task_id)
    of_batch = [WebhookDelivery.batch_id == task_id]
    shown, following = pagination.newest_first(
        session, WebhookDelivery, of_batch, limit=limit, cursor=cursor
    )
    attempts = defaultdict(list)
    tried = WebhookAttempt.delivery_id.in_([delivery.id for delivery in shown])
    for attempt in session.scalars(select(WebhookAttempt).where(tried).order_by(WebhookAttempt.id)):
        attempts[attempt.delivery_id].append(attempt)
    return [DeliveryLog(delivery, attempts[delivery.id]) for delivery in shown], following


def redeliver(
    session: Session,
    user_id: uuid.UUID,
    task_id: uuid.UUID,
    delivery_id: uuid.UUID,
    *,
    enabled: bool,
) -> DeliveryLog:
    """Queue the event of a delivery once more, as a delivery of its own; the old one stays.

    Raises `TooManyRequests` after `MOST_AN_HOUR` deliveries of the batch.
    """
    status.find(session, user_id, task_id, lock=True)
    old = session.get(WebhookDelivery, delivery_id)
    if old is None or old.batch_id != task_id:
        raise DeliveryNotFound
    if not enabled:
        raise WebhooksDisabled
    # From the one that must grow an hour old before there is room again.
    since = (
        select(func.extract("epoch", WebhookDelivery.created_at + HOUR - func.now()))
        .where(WebhookDelivery.batch_id == task_id)
        .order_by(WebhookDelivery.created_at.desc())
        .offset(MAX_PER_HOUR - 1)
        .limit(1)
    )
    wait = session.scalar(since)
    if wait is not None and wait > 0:
        raise TooManyRequests(int(wait) + 1)
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
