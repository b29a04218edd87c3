"""Deliveries as a queue: claimed under a lease, the users in turn, and settled by what came."""

from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from support.batches import make_user
from support.webhooks import SECRET, age, make_ended, make_secret
from valence_batch_worker import fair_queue
from valence_batch_worker.webhooks import deliveries
from valence_batch_worker.webhooks.deliveries import Delivery, Outcome
from valence_common.db import new_id
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
    mine = deliveries.claim(session, lease=LEASE, **more)
    assert mine is not None
    return mine


def seconds_until_due(session: Session, delivery: WebhookDelivery) -> float:
    session.refresh(delivery)
    return (delivery.next_at - session.scalar(select(func.now()))).total_seconds()


def test_claim_says_all_that_is_sent(session: Session) -> None:
    """The event, the batch's numbers as of then, no text; to where, and what signs it."""
    pending = make_ended(session, URL, status="completed_with_errors", failed=1)
    batch = session.get_one(Batch, pending.batch_id)
    session.refresh(batch)
    started_at, finished_at = batch.started_at, batch.finished_at
    # As a retry begins it again before the message is sent.
    session.execute(delete(BatchChunk).where(BatchChunk.batch_id == batch.id))
    batch.status, batch.started_at, batch.finished_at = "pending", None, None
    session.flush()
    mine = claim(session)
    assert (pending.id, 1, URL, [SECRET]) == (mine.id, mine.attempt, mine.url, mine.secrets)
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
    } == mine.message


def test_a_batch_without_url_tells_nobody(session: Session) -> None:
    """Only who asked for a webhook gets one."""
    user_id = make_user(session)
    session.add(batch := Batch(id=new_id(), user_id=user_id, total=1))
    session.flush()
    deliveries_of = select(func.count()).select_from(WebhookDelivery)
    assert 0 == session.scalar(deliveries_of.where(WebhookDelivery.batch_id == batch.id))
    assert deliveries.claim(session, lease=LEASE) is None


def test_attempt_is_counted_and_leased_by_the_claim(session: Session) -> None:
    """Who dies at it has been counted, and another tries when the lease is over."""
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
def test_what_an_outcome_leads_to(session: Session, outcome: Outcome, status: str) -> None:
    """2xx is done, 410 is told never to come again, all else is tried again; each is logged."""
    pending = make_ended(session, URL)
    mine = claim(session)
    deliveries.record_outcome(session, mine, outcome)
    session.refresh(pending)
    assert (status, status != "pending") == (pending.status, pending.finished_at is not None)
    attempt = session.scalars(select(WebhookAttempt)).one()
    assert (1, mine.started_at, *outcome) == (
        attempt.number,
        attempt.started_at,
        attempt.seconds,
        attempt.status_code,
        attempt.error,
    )


def test_pauses_grow_to_an_hour(session: Session) -> None:
    """Full jitter: between nothing and a bound that doubles."""
    pending = make_ended(session, URL)
    bounds = [min(5 * 2**n, 3600) for n in range(14)]
    for number, bound in enumerate(bounds, 1):
        age(session, pending.id, timedelta(seconds=3600))
        session.execute(text("UPDATE webhook_deliveries SET created_at = now()"))
        mine = claim(session)
        assert number == mine.attempt
        deliveries.record_outcome(session, mine, REFUSED)
        assert 0 <= seconds_until_due(session, pending) <= bound


def test_jitter_spreads(session: Session) -> None:
    """Those who failed together do not come back together."""
    user_id = make_user(session)
    pending = [make_ended(session, URL, user_id=user_id) for _ in range(20)]
    session.execute(text("UPDATE webhook_deliveries SET attempts = 9"))
    for _ in pending:
        deliveries.record_outcome(session, claim(session), REFUSED)
    waits = [seconds_until_due(session, each) for each in pending]
    assert 20 == len(set(waits))
    assert max(waits) - min(waits) > 100  # of 2560 s; by chance not once in 10^20 runs


def test_given_up_after_a_day(session: Session) -> None:
    """The last attempt is made when the day is over, not before and never after."""
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


def test_late_attempt_decides_only_for_the_better(session: Session) -> None:
    """One that was overtaken is logged; if it arrived it arrived, if not the later one decides."""
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
def test_nothing_is_sent_of_what_is_gone(session: Session, change: str) -> None:
    """Of a deleted batch, or an erased account, nobody hears any more."""
    pending = make_ended(session, URL)
    now = func.now()
    if change == "deleted":
        session.get_one(Batch, pending.batch_id).deleted_at = now
    else:
        session.get_one(User, pending.user_id).erased_at = now
    session.flush()
    assert deliveries.claim(session, lease=LEASE) is None


def test_what_is_deleted_meanwhile_is_settled_by_that(session: Session) -> None:
    """The batch went while its message was under way."""
    make_ended(session, URL)
    mine = claim(session)
    session.execute(text("DELETE FROM batches"))
    deliveries.record_outcome(session, mine, Outcome(0.1, 200))
    assert 0 == session.scalar(select(func.count()).select_from(WebhookAttempt))


def test_users_take_turns(session: Session) -> None:
    """However many one has waiting, the others come between; who is busy is passed over."""
    many = make_ended(session, URL).user_id
    for _ in range(5):
        make_ended(session, URL, user_id=many)
    few = [make_ended(session, URL).user_id for _ in range(2)]
    after, seen = fair_queue.NIL, []
    for _ in range(8):
        mine = claim(session, last_user_id=after)
        after = mine.user_id
        seen.append(mine.user_id)
    assert {many, *few} == set(seen[:3])
    assert [many] * 5 == seen[3:]
    session.execute(text("UPDATE webhook_deliveries SET next_at = now()"))
    assert few[0] == claim(session, busy_users=[many, few[1]]).user_id


def test_living_secrets_sign_newest_first(session: Session) -> None:
    """The one that was replaced signs beside the new one until its end, and is deleted then."""
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


def test_due_ones_are_counted(session: Session) -> None:
    """For the metrics: how many should be on their way, and how late the first one is."""
    assert (0, 0.0) == deliveries.measure_due(session)
    first, _, third = (make_ended(session, URL) for _ in range(3))
    age(session, first.id, timedelta(minutes=1))
    age(session, third.id, timedelta(days=-1))
    assert (2, 60.0) == deliveries.measure_due(session)
