"""Concurrency limits, semaphores with a timeout, and bounded threads."""

import asyncio
import contextlib
import contextvars
import threading
import uuid

import pytest

from valence_common.concurrency import ConcurrencyLimit, ThreadPool, TimedSemaphore
from valence_common.problems import TooManyRequests, Unavailable


def test_slots_are_released_after_errors() -> None:
    """A failing holder releases its slot; the limits then hold for others."""
    limit, users = ConcurrencyLimit(max_total=2), [uuid.uuid4() for _ in range(3)]
    for user in users:
        with contextlib.suppress(ValueError), limit.slot(user):
            raise ValueError
    with limit.slot(users[0]), limit.slot(users[1]):
        with pytest.raises(TooManyRequests), limit.slot(users[2]):
            pass
        with pytest.raises(TooManyRequests), limit.slot(users[0]):
            pass


def test_each_user_has_a_limit() -> None:
    """A user at their limit leaves the rest to others."""
    limit, users = ConcurrencyLimit(max_total=3, per_user=2), [uuid.uuid4() for _ in range(2)]
    with limit.slot(users[0]), limit.slot(users[0]):
        with pytest.raises(TooManyRequests), limit.slot(users[0]):
            pass
        with limit.slot(users[1]):
            pass


def test_units_are_counted_by_user_and_in_total() -> None:
    """Users exceed their own limit with a 429; units that others hold are a 503 of that name."""
    limit = ConcurrencyLimit(max_total=10, per_user=6, retry_after=5, dependency="uploads")
    one, other = uuid.uuid4(), uuid.uuid4()
    limit.acquire(one, 6)
    with pytest.raises(TooManyRequests) as rejected:
        limit.acquire(one, 1)
    assert "5" == rejected.value.headers["Retry-After"]
    with pytest.raises(Unavailable) as full:
        limit.acquire(other, 5)
    assert "uploads" == full.value.dependency
    limit.acquire(other, 4)
    limit.release(one, 6)
    limit.acquire(other, 2)
    assert [other] == list(limit._used)


def test_waiting_caller_gets_the_released_slot() -> None:
    """A failing holder releases its slot; a caller that waits too long gets a 503."""

    async def work() -> None:
        semaphore = TimedSemaphore("search", timeout=0.05)
        with contextlib.suppress(ValueError):
            async with semaphore.slot():
                raise ValueError
        async with semaphore.slot():
            with pytest.raises(Unavailable) as rejected:
                async with semaphore.slot():
                    pass
            assert "search" == rejected.value.dependency
        async with semaphore.slot():
            pass

    asyncio.run(work())


def test_thread_has_the_context_of_its_caller() -> None:
    """Results, errors and context variables pass through."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def work() -> None:
        pool = ThreadPool("test", 1, timeout=1)
        name.set("mine")
        seen = await pool.run(lambda: (name.get(), threading.current_thread().name))
        assert ("mine", "test_0") == seen
        with pytest.raises(ZeroDivisionError):
            await pool.run(divmod, 1, 0)
        pool.close()

    asyncio.run(work())


def test_waiting_for_a_thread_times_out() -> None:
    """With all threads busy, a caller gets a 503 after the timeout."""

    async def work() -> None:
        pool, go = ThreadPool("test", 2, timeout=0.05), threading.Event()
        busy = [asyncio.create_task(pool.run(go.wait, 10)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as rejected:
            await pool.run(int)
        assert "test" == rejected.value.dependency
        go.set()
        assert [True, True] == await asyncio.gather(*busy)
        assert 0 == await pool.run(int)
        pool.close()

    asyncio.run(work())


def test_thread_of_a_cancelled_caller_stays_occupied() -> None:
    """A slot belongs to the work, not to its caller, so threads are never overbooked."""

    async def work() -> None:
        pool = ThreadPool("test", 1, timeout=0.05)
        go, began = threading.Event(), threading.Event()

        def block() -> None:
            began.set()
            go.wait(10)

        caller = asyncio.create_task(pool.run(block))
        await asyncio.to_thread(began.wait, 10)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        with pytest.raises(Unavailable):
            await pool.run(int)
        go.set()
        pool._slots.timeout = 10
        assert 0 == await pool.run(int)
        pool.close()

    asyncio.run(work())
