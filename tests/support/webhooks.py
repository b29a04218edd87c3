"""Batches with webhooks, and their deliveries as the database holds them."""

import base64
import uuid
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from support.batches import make_user
from support.rows import query
from valence_common.batches import end_batch
from valence_common.db import new_id
from valence_common.models import Batch, BatchChunk, WebhookDelivery, WebhookSecret


def make_secret(key: str) -> str:
    """A secret in the format of Standard Webhooks, of a key of 32 bytes."""
    return "whsec_" + base64.b64encode(key.encode().ljust(32)).decode()


SECRET = make_secret("test")


def make_ended(
    session: Session,
    url: str,
    *,
    user_id: uuid.UUID | None = None,
    status: str = "completed",
    failed: int = 0,
) -> WebhookDelivery:
    """A batch that has just ended, by the code that ends batches: its delivery is pending."""
    if user_id is None:
        user_id = make_user(session)
        session.add(WebhookSecret(id=new_id(), user_id=user_id, secret=SECRET))
    batch = Batch(id=new_id(), user_id=user_id, total=2, webhook_url=url)
    session.add(batch)
    session.flush()
    chunk = BatchChunk(id=new_id(), batch_id=batch.id, user_id=user_id, start=0, size=2)
    chunk.texts, chunk.state, chunk.failed = ["a", "b"], "done", failed
    session.add(chunk)
    session.flush()
    details = {"total": 2, "failed": failed}
    end_batch(session, batch.id, user_id=user_id, status=status, details=details)
    return session.query(WebhookDelivery).filter_by(batch_id=batch.id).one()


def age(session: Session, delivery_id: uuid.UUID, by: timedelta) -> None:
    """Let time pass for a delivery: it was made, and is due, so much earlier."""
    session.execute(
        text(
            "UPDATE webhook_deliveries SET created_at = created_at - :by, next_at = next_at - :by"
            " WHERE id = :id"
        ),
        {"by": by, "id": delivery_id},
    )


def attempts(url: str, task_id: Any) -> list[tuple[Any, ...]]:
    """Of all attempts at a batch's deliveries: number, status code and error."""
    return query(
        url,
        "SELECT number, status_code, error FROM webhook_attempts JOIN webhook_deliveries AS d"
        " ON d.id = delivery_id WHERE d.batch_id = :id ORDER BY webhook_attempts.id",
        id=task_id,
    )


def hurry(url: str) -> None:
    """Make everything that is pending due now."""
    query(url, "UPDATE webhook_deliveries SET next_at = now() WHERE status = 'pending'")
