"""Round robin: users share the workers evenly; within a user, priority decides."""

import uuid
from collections import Counter

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.batches import accept, make_user
from valence_batch_worker import fair_queue
from valence_batch_worker.batches import chunks
from valence_common.models import Batch


def queue(
    session: Session, user_id: uuid.UUID, *texts: str, priority: int = 5, chunk_texts: int = 1
) -> Batch:
    """A batch of that user with that priority."""
    return accept(session, user_id, texts, chunk_texts=chunk_texts, priority=priority)


def users(session: Session, count: int) -> list[uuid.UUID]:
    """Users in round-robin order."""
    return sorted(make_user(session) for _ in range(count))


def take(session: Session, limit: int = 1000, *, after: uuid.UUID = fair_queue.NIL, **limits: int):
    """The users and texts of the chunks that one worker claims, up to `limit`."""
    taken = []
    while len(taken) < limit:
        claimed = chunks.claim(
            session, lease_seconds=30, max_attempts=3, last_user_id=after, **limits
        )
        if claimed is None:
            break
        after = claimed.user_id
        taken.append((claimed.user_id, *claimed.texts))
    return taken


def change(session: Session, values: str, user_id: uuid.UUID, *, limit: int = 1000) -> None:
    """Set columns of a user's first chunks."""
    which = "SELECT id FROM batch_chunks WHERE user_id = :user_id ORDER BY id LIMIT :limit"
    statement = text(f"UPDATE batch_chunks SET {values} WHERE id IN ({which})")
    session.execute(statement, {"user_id": user_id, "limit": limit})


def test_users_are_served_round_robin(session: Session) -> None:
    """A user who comes last with a small batch is served in the first round."""
    first, second, third = users(session, 3)
    queue(session, second, *(f"second {n}" for n in range(50)))
    queue(session, third, *(f"third {n}" for n in range(50)))
    queue(session, first, "first 0", "first 1")
    assert [
        (first, "first 0"),
        (second, "second 0"),
        (third, "third 0"),
        (first, "first 1"),
        (second, "second 1"),
        (third, "third 1"),
        (second, "second 2"),
        (third, "third 2"),
    ] == take(session, 8)


@pytest.mark.parametrize("place", range(3))
def test_next_user_follows_the_last_one_served(session: Session, place: int) -> None:
    """Also from the last user to the first, and if the last one served has no chunks."""
    all_users = users(session, 3)
    for user in all_users:
        queue(session, user, "a", "b")
    expected = [*all_users[place + 1 :], *all_users[: place + 1]]
    assert expected == [user for user, _ in take(session, 3, after=all_users[place])]
    unknown = uuid.UUID(int=all_users[place].int + 1)
    assert expected == [user for user, _ in take(session, 3, after=unknown)]


def test_single_user_is_served_without_pause(session: Session) -> None:
    """Without other users, chunks go in their order."""
    [user] = users(session, 1)
    queue(session, user, *"abcde")
    assert [(user, letter) for letter in "abcde"] == take(session, after=user)


@pytest.mark.parametrize("after", [fair_queue.NIL, uuid.UUID(int=2**128 - 1), uuid.uuid4()])
def test_empty_queue_is_not_an_error(session: Session, after: uuid.UUID) -> None:
    """Whichever user was served last."""
    assert [] == take(session, after=after)


def test_priority_orders_only_a_users_own_chunks(session: Session) -> None:
    """Urgent chunks go before older ones of the same user, but not before other users'."""
    first, second = users(session, 2)
    queue(session, first, "late", priority=9)
    queue(session, first, "usual")
    queue(session, first, "urgent 0", "urgent 1", priority=1)
    queue(session, second, "other 0", "other 1", priority=9)
    assert [
        (first, "urgent 0"),
        (second, "other 0"),
        (first, "urgent 1"),
        (second, "other 1"),
        (first, "usual"),
        (first, "late"),
    ] == take(session)


def test_user_at_the_concurrency_limit_is_skipped(session: Session) -> None:
    """The limit holds per user; a chunk that ends frees a slot."""
    greedy, modest = users(session, 2)
    queue(session, greedy, *"abcdef")
    queue(session, modest, "x")
    claimed = take(session, user_chunks=3)
    assert Counter({greedy: 3, modest: 1}) == Counter(user for user, _ in claimed)
    assert [] == take(session, user_chunks=3)
    change(session, "state = 'done', lease_until = NULL", modest)
    assert [] == take(session, user_chunks=3)
    change(session, "state = 'done', lease_until = NULL", greedy, limit=1)
    assert [(greedy, "d")] == take(session, user_chunks=3)
    assert [(greedy, "e"), (greedy, "f")] == take(session, user_chunks=100)


@pytest.mark.parametrize(
    "values",
    ["available_at = now() + interval '1 hour'", "attempt = 3"],
    ids=["not yet due", "exhausted"],
)
def test_users_without_claimable_chunks_are_skipped(session: Session, values: str) -> None:
    """However many of them are between two users with claimable chunks."""
    all_users = users(session, 20)
    for user in all_users:
        queue(session, user, "a", "b")
        if user not in {all_users[3], all_users[17]}:
            change(session, values, user)
    expected = [all_users[17], all_users[3], all_users[17], all_users[3]]
    assert expected == [user for user, _ in take(session, after=all_users[10])]


def test_delayed_chunk_does_not_block_those_behind_it(session: Session) -> None:
    """A failed chunk that waits for its next attempt lets the user's other chunks pass."""
    [user] = users(session, 1)
    queue(session, user, "waits", "goes", priority=1)
    change(session, "available_at = now() + interval '1 hour'", user, limit=1)
    queue(session, user, "goes too", priority=9)
    assert [(user, "goes"), (user, "goes too")] == take(session)
