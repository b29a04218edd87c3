"""The queue of webhook deliveries: due ones are claimed under a lease, users served round robin.

A claim counts the attempt and moves `next_at` ahead by the lease, so another worker retries if this
one dies. A message may arrive twice, but it is never lost. All times are the database's.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from valence_batch_worker.fair_queue import NIL, round_robin_users
from valence_common.db import new_id
from valence_common.postgres import force_index_scans

MIN_BACKOFF: Final = timedelta(seconds=5)
MAX_BACKOFF: Final = timedelta(hours=1)
GIVE_UP_AFTER: Final = timedelta(days=1)
HTTP_GONE: Final = 410
MAX_COUNTED: Final = 1_000

# Skips deliveries of deleted batches and erased accounts.
_CLAIM = text(f"""
WITH RECURSIVE {round_robin_users("webhook_deliveries WHERE status = 'pending'")}, next AS (
    SELECT first.id
    FROM round_robin, LATERAL (
        SELECT delivery.id FROM webhook_deliveries AS delivery
        WHERE delivery.status = 'pending' AND delivery.user_id = round_robin.user_id
            AND delivery.next_at <= now() AND (
                SELECT batch.deleted_at IS NULL AND batch.webhook_url IS NOT NULL
                    AND owner.erased_at IS NULL
                FROM batches AS batch JOIN users AS owner ON owner.id = batch.user_id
                WHERE batch.id = delivery.batch_id
            )
        ORDER BY delivery.next_at
        LIMIT 1 FOR UPDATE OF delivery SKIP LOCKED
    ) AS first
    WHERE round_robin.started AND round_robin.user_id <> ALL (:busy_users)
    LIMIT 1
)
UPDATE webhook_deliveries AS delivery
SET attempts = delivery.attempts + 1, next_at = now() + :lease
FROM batches AS batch
WHERE batch.id = delivery.batch_id AND delivery.id = (SELECT id FROM next)
RETURNING delivery.id, delivery.attempts, delivery.event, delivery.created_at, delivery.user_id,
    delivery.batch_id, delivery.done, delivery.failed, delivery.started_at, delivery.ended_at,
    batch.webhook_url, batch.total, batch.created_at AS accepted_at, now() AS attempted_at
""")  # noqa: S608 - a constant of that file

_SELECT_SECRETS = text("""
SELECT secret FROM webhook_secrets
WHERE user_id = :user_id AND (expires_at IS NULL OR expires_at > now()) ORDER BY id DESC
""")

_LOCK = text("SELECT attempts, status FROM webhook_deliveries WHERE id = :id FOR NO KEY UPDATE")

_INSERT_ATTEMPT = text("""
INSERT INTO webhook_attempts (id, delivery_id, number, started_at, seconds, status_code, error)
VALUES (:id, :delivery_id, :number, :started_at, :seconds, :status_code, :error)
""")

_FINISH = text("""
UPDATE webhook_deliveries SET status = :status, finished_at = now() WHERE id = :id
""")

# Exponential backoff with full jitter, so that deliveries that failed together do not return
# together. The last attempt is made after a day.
_POSTPONE = text("""
UPDATE webhook_deliveries
SET status = CASE WHEN now() < created_at + :give_up_after THEN 'pending' ELSE 'failed' END,
    finished_at = CASE WHEN now() < created_at + :give_up_after THEN NULL ELSE now() END,
    next_at = least(created_at + :give_up_after, now() + random() * least(
        :max_backoff, :min_backoff * power(2, least(attempts - 1, 30))))
WHERE id = :id
""")

_COUNT_DUE = text("""
SELECT count(*) AS due, coalesce(extract(epoch FROM now() - min(next_at)), 0) AS late
FROM (
    SELECT next_at FROM webhook_deliveries WHERE status = 'pending' AND next_at <= now()
    ORDER BY next_at LIMIT :limit
) AS due
""")

_DELETE_EXPIRED_SECRETS = text("DELETE FROM webhook_secrets WHERE expires_at < now()")


@dataclass(frozen=True)
class Delivery:
    """One attempt to deliver one message, with the secrets that sign it."""

    id: uuid.UUID
    attempt: int
    user_id: uuid.UUID
    url: str
    secrets: list[str]
    message: dict[str, Any]
    started_at: datetime


class Outcome(NamedTuple):
    """The outcome of an attempt: the receiver's status, or one word for why there is none.

    The error `redirect` comes with a status; redirects are never followed.
    """

    seconds: float
    status_code: int | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver answered 2xx."""
        return self.status_code is not None and 200 <= self.status_code < 300


def claim(
    session: Session,
    *,
    lease: timedelta,
    busy_users: Collection[uuid.UUID] = (),
    last_user_id: uuid.UUID = NIL,
) -> Delivery | None:
    """Claim the next due delivery; None if none is due.

    It belongs to the next user after `last_user_id` in round-robin order, except `busy_users`.
    """
    force_index_scans(session)
    values = {"lease": lease, "busy_users": list(busy_users), "last_user_id": last_user_id}
    row = session.execute(_CLAIM, values).one_or_none()
    if row is None:
        return None
    secrets = session.scalars(_SELECT_SECRETS, {"user_id": row.user_id}).all()
    message = {
        "id": row.id,
        "type": row.event,
        "created_at": row.created_at,
        "data": {
            "task_id": row.batch_id,
            "status": row.event.removeprefix("batch."),
            "total": row.total,
            "done": row.done,
            "failed": row.failed,
            "created_at": row.accepted_at,
            "started_at": row.started_at,
            "finished_at": row.ended_at,
        },
    }
    return Delivery(
        row.id,
        row.attempts,
        row.user_id,
        row.webhook_url,
        list(secrets),
        message,
        row.attempted_at,
    )


def record_outcome(session: Session, delivery: Delivery, outcome: Outcome) -> None:
    """Log the attempt, then finish the delivery or schedule the next attempt."""
    row = session.execute(_LOCK, {"id": delivery.id}).one_or_none()
    if row is None:
        return  # deleted with its batch during the attempt
    attempt = {"id": new_id(), "delivery_id": delivery.id, "number": delivery.attempt}
    session.execute(
        _INSERT_ATTEMPT, {**attempt, "started_at": delivery.started_at, **outcome._asdict()}
    )
    if row.status != "pending":
        return
    if outcome.delivered:
        session.execute(_FINISH, {"id": delivery.id, "status": "delivered"})
    elif row.attempts != delivery.attempt:
        return  # the lease expired, and a later attempt decides
    elif outcome.status_code == HTTP_GONE:
        session.execute(_FINISH, {"id": delivery.id, "status": "failed"})
    else:
        values = {
            "min_backoff": MIN_BACKOFF,
            "max_backoff": MAX_BACKOFF,
            "give_up_after": GIVE_UP_AFTER,
        }
        session.execute(_POSTPONE, {"id": delivery.id, **values})


def measure_due(session: Session) -> tuple[int, float]:
    """Return how many deliveries are due, up to `MAX_COUNTED`, and the first one's delay in s."""
    force_index_scans(session)
    row = session.execute(_COUNT_DUE, {"limit": MAX_COUNTED}).one()
    return row.due, float(row.late)


def delete_expired_secrets(session: Session) -> None:
    """Delete the secrets whose grace period is over."""
    session.execute(_DELETE_EXPIRED_SECRETS)
