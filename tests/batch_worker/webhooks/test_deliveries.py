"""The queue of deliveries: claimed under a lease, round robin, and finished by the outcome."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import delete, event, func, select, text
from sqlalchemy.orm import Session

from support.batches import make_user
from support.webhooks import SECRET, age, make_ended, make_secret
from valence_batch_worker import fair_queue
from valence_batch_worker.webhooks import deliveries
from valence_batch_worker.webhooks.deliveries import Delivery, Outcome
from valence_common.db import Database, new_id
from valence_common.models import (
    Batch,
    BatchChunk,
    User,
    WebhookAttempt,
    WebhookDelivery,
    WebhookSecret,
)

URL = "https://example.com/hook"
LEASE = timedelta(seconds=40)
REFUSED = Outcome(0.1, 500)


def claim(session: Session, **more) -> Delivery:
    claimed = deliveries.claim(session, lease=LEASE, **more)
    assert claimed is not None
    return claimed


def seconds_until_due(session: Session, delivery: WebhookDelivery) -> float:
    session.refresh(delivery)
    return (delivery.next_at - session.scalar(select(func.now()))).total_seconds()


def test_claim_returns_the_message(session: Session) -> None:
    """The event, the batch's numbers as of then, no text; the URL, and the secrets."""
    pending = make_ended(session, URL, status="completed_with_errors", failed=1)
    batch = session.get_one(Batch, pending.batch_id)
    session.refresh(batch)
    started_at, finished_at = batch.started_at, batch.finished_at
    # As a retry would restart it before the message is sent.
    session.execute(delete(BatchChunk).where(BatchChunk.batch_id == batch.id))
    batch.status, batch.started_at, batch.finished_at = "pending", None, None
    session.flush()
    claimed = claim(session)
    assert (pending.id, 1, URL, [SECRET]) == (
        claimed.id,
        claimed.attempt,
        claimed.url,
        claimed.secrets,
    )
    assert {
        "id": pending.id,
        "type": "batch.completed_with_errors",
        "created_at": pending.created_at,
        "data": {
            "task_id": batch.id,
            "status": "completed_with_errors",
            "total": 2,
            "done": 2,
            "failed": 1,
            "created_at": batch.created_at,
            "started_at": started_at,
            "finished_at": finished_at,
        },
    } == claimed.message


def test_batch_without_url_has_no_delivery(session: Session) -> None:
    """A webhook is opt-in per batch."""
    user_id = make_user(session)
    session.add(batch := Batch(id=new_id(), user_id=user_id, total=1))
    session.flush()
    assert [] == session.query(WebhookDelivery).filter_by(batch_id=batch.id).all()
    assert deliveries.claim(session, lease=LEASE) is None


def test_attempt_is_counted_and_leased_by_the_claim(session: Session) -> None:
    """The attempt of a worker that dies counts; another one retries after the lease."""
    pending = make_ended(session, URL)
    claim(session)
    session.refresh(pending)
    assert (1, "pending") == (pending.attempts, pending.status)
    assert LEASE.total_seconds() == seconds_until_due(session, pending)
    assert deliveries.claim(session, lease=LEASE) is None
    age(session, pending.id, LEASE)
    again = claim(session)
    assert (pending.id, 2) == (again.id, again.attempt)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome(0.1, 200), "delivered"),
        (Outcome(0.1, 204), "delivered"),
        (Outcome(0.1, 410), "failed"),
        (Outcome(0.1, 404), "pending"),
        (Outcome(0.1, 500), "pending"),
        (Outcome(0.1, 302, "redirect"), "pending"),
        (Outcome(0.1, None, "timeout"), "pending"),
        (Outcome(0.1, None, "refused_address"), "pending"),
    ],
)
def test_outcome_decides_the_status(session: Session, outcome: Outcome, status: str) -> None:
    """2xx is delivered, 410 is final, anything else is retried; each attempt is logged."""
    pending = make_ended(session, URL)
    claimed = claim(session)
    deliveries.record_outcome(session, claimed, outcome)
    session.refresh(pending)
    assert (status, status != "pending") == (pending.status, pending.finished_at is not None)
    attempt = session.scalars(select(WebhookAttempt)).one()
    assert (1, claimed.started_at, *outcome) == (
        attempt.number,
        attempt.started_at,
        attempt.seconds,
        attempt.status_code,
        attempt.error,
    )


def test_backoff_grows_to_an_hour(session: Session) -> None:
    """Full jitter: between zero and a limit that doubles."""
    pending = make_ended(session, URL)
    limits = [min(5 * 2**n, 3600) for n in range(14)]
    for number, limit in enumerate(limits, 1):
        age(session, pending.id, timedelta(seconds=3600))
        session.execute(text("UPDATE webhook_deliveries SET created_at = now()"))
        claimed = claim(session)
        assert number == claimed.attempt
        deliveries.record_outcome(session, claimed, REFUSED)
        assert 0 <= seconds_until_due(session, pending) <= limit


def test_jitter_spreads_retries(session: Session) -> None:
    """Deliveries that failed together do not return together."""
    user_id = make_user(session)
    pending = [make_ended(session, URL, user_id=user_id) for _ in range(20)]
    session.execute(text("UPDATE webhook_deliveries SET attempts = 9"))
    for _ in pending:
        deliveries.record_outcome(session, claim(session), REFUSED)
    waits = [seconds_until_due(session, each) for each in pending]
    assert 20 == len(set(waits))
    assert max(waits) - min(waits) > 100  # of 2560 s; by chance not once in 10^20 runs


def test_delivery_fails_after_a_day(session: Session) -> None:
    """The last attempt is made when the day is over, and none after it."""
    pending = make_ended(session, URL)
    session.execute(text("UPDATE webhook_deliveries SET attempts = 30"))
    age(session, pending.id, timedelta(hours=23, minutes=59, seconds=59))
    deliveries.record_outcome(session, claim(session), REFUSED)
    session.refresh(pending)
    assert "pending" == pending.status
    assert 0 <= seconds_until_due(session, pending) <= 1
    age(session, pending.id, timedelta(seconds=1))
    deliveries.record_outcome(session, claim(session), REFUSED)
    session.refresh(pending)
    assert ("failed", True) == (pending.status, pending.finished_at is not None)
    age(session, pending.id, timedelta(days=1))
    assert deliveries.claim(session, lease=LEASE) is None


def test_late_attempt_decides_only_if_delivered(session: Session) -> None:
    """An attempt past its lease is logged; unless it delivered, the later attempt decides."""
    first, second = make_ended(session, URL), make_ended(session, URL)
    for pending, outcome, status in (
        (first, REFUSED, "pending"),
        (second, Outcome(0.1, 200), "delivered"),
    ):
        others = {first.user_id, second.user_id} - {pending.user_id}
        late = claim(session, busy_users=others)
        age(session, pending.id, LEASE)
        claim(session, busy_users=others)
        deliveries.record_outcome(session, late, outcome)
        assert LEASE.total_seconds() == seconds_until_due(session, pending)
        assert status == pending.status
    assert 2 == session.scalar(select(func.count()).select_from(WebhookAttempt))


@pytest.mark.parametrize("change", ["deleted", "erased"])
def test_deleted_batches_and_erased_accounts_send_nothing(session: Session, change: str) -> None:
    """Their pending deliveries are never claimed."""
    pending = make_ended(session, URL)
    now = func.now()
    if change == "deleted":
        session.get_one(Batch, pending.batch_id).deleted_at = now
    else:
        session.get_one(User, pending.user_id).erased_at = now
    session.flush()
    assert deliveries.claim(session, lease=LEASE) is None


def test_delivery_deleted_during_the_attempt(session: Session) -> None:
    """The batch was deleted while its message was in flight."""
    make_ended(session, URL)
    claimed = claim(session)
    session.execute(text("DELETE FROM batches"))
    deliveries.record_outcome(session, claimed, Outcome(0.1, 200))
    assert 0 == session.scalar(select(func.count()).select_from(WebhookAttempt))


def test_users_are_served_round_robin(session: Session) -> None:
    """However many deliveries one user has; busy users are skipped."""
    heavy = make_ended(session, URL).user_id
    for _ in range(5):
        make_ended(session, URL, user_id=heavy)
    light = [make_ended(session, URL).user_id for _ in range(2)]
    last_user_id, seen = fair_queue.NIL, []
    for _ in range(8):
        claimed = claim(session, last_user_id=last_user_id)
        last_user_id = claimed.user_id
        seen.append(claimed.user_id)
    assert {heavy, *light} == set(seen[:3])
    assert [heavy] * 5 == seen[3:]
    session.execute(text("UPDATE webhook_deliveries SET next_at = now()"))
    assert light[0] == claim(session, busy_users=[heavy, light[1]]).user_id


def test_valid_secrets_sign_newest_first(session: Session) -> None:
    """The replaced secret signs next to the new one until it expires, and is then deleted."""
    pending = make_ended(session, URL)
    [old] = session.scalars(select(WebhookSecret))
    now = session.scalar(select(func.now()))
    old.expires_at = now + timedelta(hours=1)
    new = make_secret("new")
    session.add(WebhookSecret(id=new_id(), user_id=pending.user_id, secret=new))
    session.flush()
    assert [new, SECRET] == claim(session).secrets
    old.expires_at = now
    session.flush()
    age(session, pending.id, LEASE)
    assert [new] == claim(session).secrets
    old.expires_at = now - timedelta(seconds=1)
    session.flush()
    deliveries.delete_expired_secrets(session)
    assert [new] == list(session.scalars(select(WebhookSecret.secret)))


def test_due_deliveries_are_measured(session: Session) -> None:
    """For the metrics: how many are due, and how late the first one is."""
    assert (0, 0.0) == deliveries.measure_due(session)
    first, _, third = (make_ended(session, URL) for _ in range(3))
    age(session, first.id, timedelta(minutes=1))
    age(session, third.id, timedelta(days=-1))
    assert (2, 60.0) == deliveries.measure_due(session)


def test_queue_is_read_along_its_index(session: Session) -> None:
    """However many deliveries wait, and whatever the table's statistics."""
    pending = make_ended(session, URL)
    session.execute(
        text(
            "INSERT INTO webhook_deliveries (id, batch_id, user_id, event, next_at)"
            " SELECT gen_random_uuid(), :batch, :user, 'batch.completed', now()"
            " FROM generate_series(1, 5000)"
        ),
        {"batch": pending.batch_id, "user": pending.user_id},
    )
    plans: list[str] = []

    def explain(_, cursor, statement, parameters, *__) -> None:
        if "webhook_deliveries" in statement:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(line for (line,) in cursor))

    engine = session.connection().engine
    event.listen(engine, "before_cursor_execute", explain)
    assert deliveries.claim(session, lease=LEASE) is not None
    deliveries.measure_due(session)
    event.remove(engine, "before_cursor_execute", explain)
    claim_plan, due_plan = plans
    assert "ix_webhook_deliveries_queue" in claim_plan
    assert "ix_webhook_deliveries_due" in due_plan
    for plan in plans:
        assert "Seq Scan on webhook_deliveries" not in plan
        assert "Sort" not in plan


def test_concurrent_claims_take_different_deliveries(database: Database) -> None:
    """Eight workers claim all deliveries, each delivery once."""
    with database.transaction() as session:
        users = [make_user(session) for _ in range(4)]
        made = {make_ended(session, URL, user_id=users[n % 4]).id for n in range(40)}
    start = threading.Barrier(8)

    def work(_: int) -> list[uuid.UUID]:
        start.wait()
        taken = []
        while True:
            with database.transaction() as session:
                claimed = deliveries.claim(session, lease=LEASE)
            if claimed is None:
                return taken
            taken.append(claimed.id)

    with ThreadPoolExecutor(8) as pool:
        taken = [each for part in pool.map(work, range(8)) for each in part]
    assert sorted(made) == sorted(taken)
