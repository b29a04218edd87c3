"""Turns: refused or waited for, and given back whatever happens."""

import asyncio
import contextlib
import uuid

import pytest

from valence_common.concurrency import ConcurrencyLimit, TimedSemaphore
from valence_common.problems import TooManyRequests, Unavailable


def test_turns_are_given_back() -> None:
    """Also by whoever fails."""
    turns, users = ConcurrencyLimit(max_total=2), [uuid.uuid4() for _ in range(3)]
    for user in users:
        with contextlib.suppress(ValueError), turns.slot(user):
            raise ValueError
    with turns.slot(users[0]), turns.slot(users[1]):
        with pytest.raises(TooManyRequests), turns.slot(users[2]):
            pass
        with pytest.raises(TooManyRequests), turns.slot(users[0]):
            pass


def test_a_user_has_as_many_turns_as_each_may() -> None:
    """And others have theirs."""
    turns, users = ConcurrencyLimit(max_total=3, per_user=2), [uuid.uuid4() for _ in range(2)]
    with turns.slot(users[0]), turns.slot(users[0]):
        with pytest.raises(TooManyRequests), turns.slot(users[0]):
            pass
        with turns.slot(users[1]):
            pass


def test_who_stands_in_line_gets_the_turn_that_is_given_back() -> None:
    """Also by whoever fails; who waits too long hears what is not available."""

    async def stand() -> None:
        line = TimedSemaphore("search", timeout=0.05)
        with contextlib.suppress(ValueError):
            async with line.slot():
                raise ValueError
        async with line.slot():
            with pytest.raises(Unavailable) as refused:
                async with line.slot():
                    pass
            assert "search" == refused.value.dependency
        async with line.slot():
            pass

    asyncio.run(stand())
