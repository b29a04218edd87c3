"""Turns: users share the workers evenly, and each user's most urgent chunks go first."""

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
    """A batch of that user, urgent as said."""
    return accept(session, user_id, texts, chunk_texts=chunk_texts, priority=priority)


def users(session: Session, count: int) -> list[uuid.UUID]:
    """Accounts, in the order in which turns go around."""
    return sorted(make_user(session) for _ in range(count))


def take(session: Session, most: int = 1000, *, after: uuid.UUID = fair_queue.NIL, **limits: int):
    """What one worker claims until it finds nothing, or `most` times: users and texts."""
    taken = []
    while len(taken) < most:
        mine = chunks.claim(session, lease_seconds=30, max_attempts=3, last_user_id=after, **limits)
        if mine is None:
            break
        after = mine.user_id
        taken.append((mine.user_id, *mine.texts))
    return taken


def change(session: Session, values: str, user_id: uuid.UUID, *, most: int = 1000) -> None:
    """Give that to the first of a user's chunks."""
    which = "SELECT id FROM batch_chunks WHERE user_id = :user_id ORDER BY id LIMIT :most"
    statement = text(f"UPDATE batch_chunks SET {values} WHERE id IN ({which})")
    session.execute(statement, {"user_id": user_id, "most": most})


def test_users_take_turns_however_much_each_has_queued(session: Session) -> None:
    """Who came last with a little is served at the first round, not after all the others."""
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
def test_turn_goes_on_after_whoever_was_served_last(session: Session, place: int) -> None:
    """Also past the last user to the first, and when the one served last is gone."""
    all_three = users(session, 3)
    for user in all_three:
        queue(session, user, "a", "b")
    expected = [*all_three[place + 1 :], *all_three[: place + 1]]
    assert expected == [user for user, _ in take(session, 3, after=all_three[place])]
    beside = uuid.UUID(int=all_three[place].int + 1)  # nobody's
    assert expected == [user for user, _ in take(session, 3, after=beside)]


def test_single_user_is_served_without_pause(session: Session) -> None:
    """Nobody else waits: all of it in its order."""
    [only] = users(session, 1)
    queue(session, only, *"abcde")
    assert [(only, letter) for letter in "abcde"] == take(session, after=only)


@pytest.mark.parametrize("after", [fair_queue.NIL, uuid.UUID(int=2**128 - 1), uuid.uuid4()])
def test_empty_queue_is_an_answer(session: Session, after: uuid.UUID) -> None:
    """Wherever the turn stands."""
    assert [] == take(session, after=after)


def test_priority_orders_a_users_own_chunks_and_nobody_elses(session: Session) -> None:
    """Urgent ones go before older ones of the same user; they push no other user aside."""
    one, other = users(session, 2)
    queue(session, one, "late", priority=9)
    queue(session, one, "usual")
    queue(session, one, "urgent 0", "urgent 1", priority=1)
    queue(session, other, "other 0", "other 1", priority=9)
    assert [
        (one, "urgent 0"),
        (other, "other 0"),
        (one, "urgent 1"),
        (other, "other 1"),
        (one, "usual"),
        (one, "late"),
    ] == take(session)


def test_user_with_enough_in_work_is_passed_over(session: Session) -> None:
    """The cap holds for each user; what ends or is given back makes room again."""
    greedy, modest = users(session, 2)
    queue(session, greedy, *"abcdef")
    queue(session, modest, "x")
    claimed = take(session, user_chunks=3)
    assert Counter({greedy: 3, modest: 1}) == Counter(user for user, _ in claimed)
    assert [] == take(session, user_chunks=3)
    change(session, "state = 'done', lease_until = NULL", modest)
    assert [] == take(session, user_chunks=3)
    change(session, "state = 'done', lease_until = NULL", greedy, most=1)
    assert [(greedy, "d")] == take(session, user_chunks=3)
    assert [(greedy, "e"), (greedy, "f")] == take(session, user_chunks=100)


@pytest.mark.parametrize(
    "values",
    ["available_at = now() + interval '1 hour'", "attempt = 3"],
    ids=["not yet due", "exhausted"],
)
def test_users_without_a_chunk_that_can_be_claimed_are_passed_over(
    session: Session, values: str
) -> None:
    """However many of them stand between one who has work and the next."""
    everybody = users(session, 20)
    for user in everybody:
        queue(session, user, "a", "b")
        if user not in {everybody[3], everybody[17]}:
            change(session, values, user)
    expected = [everybody[17], everybody[3], everybody[17], everybody[3]]
    assert expected == [user for user, _ in take(session, after=everybody[10])]


def test_chunk_that_waits_lets_the_users_others_go_first(session: Session) -> None:
    """One that failed and waits, or is exhausted, holds up nothing behind it."""
    [only] = users(session, 1)
    queue(session, only, "waits", "goes", priority=1)
    change(session, "available_at = now() + interval '1 hour'", only, most=1)
    queue(session, only, "goes too", priority=9)
    assert [(only, "goes"), (only, "goes too")] == take(session)
