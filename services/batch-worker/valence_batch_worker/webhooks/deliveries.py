"""Deliveries as a queue: due ones are claimed under a lease, the users taking turns, and settled.

An attempt is counted by its claim, which moves `next_at` ahead by the lease: when its worker dies,
another one tries again then. So a message can arrive twice, and is never forgotten. All times are
the database's.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from valence_batch_worker.fair_queue import NIL, follow_index, round_robin_users
from valence_common.db import new_id

MIN_BACKOFF: Final = timedelta(seconds=5)
MAX_BACKOFF: Final = timedelta(hours=1)
GIVE_UP_AFTER: Final = timedelta(days=1)
HTTP_GONE: Final = 410
MAX_COUNTED: Final = 1_000

# Of batches that are deleted, or whose account is erased, nothing is sent any more.
_CLAIM = text(f"""
WITH RECURSIVE {round_robin_users("webhook_deliveries WHERE status = 'pending'")}, next AS (
    SELECT found.id
    FROM turn, LATERAL (
        SELECT delivery.id FROM webhook_deliveries AS delivery
        WHERE delivery.status = 'pending' AND delivery.user_id = turn.user_id
            AND delivery.next_at <= now() AND (
                SELECT batch.deleted_at IS NULL AND batch.webhook_url IS NOT NULL
                    AND owner.erased_at IS NULL
                FROM batches AS batch JOIN users AS owner ON owner.id = batch.user_id
                WHERE batch.id = delivery.batch_id
            )
        ORDER BY delivery.next_at
        LIMIT 1 FOR UPDATE OF delivery SKIP LOCKED
    ) AS found
    WHERE turn.begun AND turn.user_id <> ALL (:busy)
    LIMIT 1
)
UPDATE webhook_deliveries AS mine
SET attempts = mine.attempts + 1, next_at = now() + :lease
FROM batches AS batch
WHERE batch.id = mine.batch_id AND mine.id = (SELECT id FROM next)
RETURNING mine.id, mine.attempts, mine.event, mine.created_at, mine.user_id, mine.batch_id,
    mine.done, mine.failed, mine.started_at, mine.ended_at,
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

# Exponential with full jitter, so that those who failed together do not come back together; the
# last attempt is made when the day is over.
_POSTPONE = text("""
UPDATE webhook_deliveries
SET status = CASE WHEN now() < created_at + :day THEN 'pending' ELSE 'failed' END,
    finished_at = CASE WHEN now() < created_at + :day THEN NULL ELSE now() END,
    next_at = least(created_at + :day, now() + random() * least(
        :longest, :first * power(2, least(attempts - 1, 30))))
WHERE id = :id
""")

_COUNT_DUE = text("""
SELECT count(*) AS waiting, coalesce(extract(epoch FROM now() - min(next_at)), 0) AS late
FROM (
    SELECT next_at FROM webhook_deliveries WHERE status = 'pending' AND next_at <= now()
    ORDER BY next_at LIMIT :limit
) AS due
""")

_DELETE_EXPIRED_SECRETS = text("DELETE FROM webhook_secrets WHERE expires_at < now()")


@dataclass(frozen=True)
class Delivery:
    """One attempt at one message: where to, what it says, and what it is signed with."""

    id: uuid.UUID
    attempt: int
    user_id: uuid.UUID
    event: str
    url: str
    secrets: list[str]
    message: dict[str, Any]
    started_at: datetime


class Outcome(NamedTuple):
    """How an attempt went: the receiver's status, or the one word for why there was none.

    `redirect` comes with a status: what it points to is never followed.
    """

    seconds: float
    status_code: int | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver said that it has it."""
        return self.status_code is not None and 200 <= self.status_code < 300


def claim(
    session: Session,
    *,
    lease: timedelta,
    busy_users: Collection[uuid.UUID] = (),
    last_user_id: uuid.UUID = NIL,
) -> Delivery | None:
    """Take the delivery that is due of the next user `after` that one, unless they are `busy`."""
    follow_index(session)
    values = {"lease": lease, "busy": list(busy_users), "after": last_user_id}
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
        row.event,
        row.webhook_url,
        list(secrets),
        message,
        row.attempted_at,
    )


def record_outcome(session: Session, delivery: Delivery, outcome: Outcome) -> None:
    """Write an attempt down, and what follows from it: done, another time, or never again."""
    row = session.execute(_LOCK, {"id": delivery.id}).one_or_none()
    if row is None:
        return  # deleted meanwhile, with its batch
    attempt = {"id": new_id(), "delivery_id": delivery.id, "number": delivery.attempt}
    session.execute(
        _INSERT_ATTEMPT, {**attempt, "started_at": delivery.started_at, **outcome._asdict()}
    )
    if row.status != "pending":
        return
    if outcome.delivered:
        session.execute(_FINISH, {"id": delivery.id, "status": "delivered"})
    elif row.attempts != delivery.attempt:
        return  # overtaken: what follows is decided by the later attempt
    elif outcome.status_code == HTTP_GONE:
        session.execute(_FINISH, {"id": delivery.id, "status": "failed"})
    else:
        pauses = {"first": MIN_BACKOFF, "longest": MAX_BACKOFF, "day": GIVE_UP_AFTER}
        session.execute(_POSTPONE, {"id": delivery.id, **pauses})


def measure_due(session: Session) -> tuple[int, float]:
    """How many deliveries are due, counted up to a bound, and how late the first is, in seconds."""
    follow_index(session)
    row = session.execute(_COUNT_DUE, {"limit": MAX_COUNTED}).one()
    return row.waiting, float(row.late)


def delete_expired_secrets(session: Session) -> None:
    """Delete the secrets that sign no more."""
    session.execute(_DELETE_EXPIRED_SECRETS)
