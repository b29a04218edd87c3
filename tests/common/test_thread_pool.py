"""A bounded set of threads: who finds no free one in time is told so."""

import asyncio
import contextvars
import threading

import pytest

from valence_common.concurrency import ThreadPool
from valence_common.problems import Unavailable


def test_work_runs_elsewhere_with_its_context() -> None:
    """The result, the error and the context variables of the caller go through."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def work() -> None:
        threads = ThreadPool("test", 1, timeout=1)
        name.set("mine")
        found = await threads.run(lambda: (name.get(), threading.current_thread().name))
        assert ("mine", "test_0") == found
        with pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 1, 0)
        threads.close()

    asyncio.run(work())


def test_nobody_waits_for_long() -> None:
    """With all threads busy a caller is refused after `wait`, and served once one is free."""

    async def work() -> None:
        threads, go = ThreadPool("test", 2, timeout=0.05), threading.Event()
        busy = [asyncio.create_task(threads.run(go.wait, 10)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as refused:
            await threads.run(int)
        assert "test" == refused.value.dependency
        go.set()
        assert [True, True] == await asyncio.gather(*busy)
        assert 0 == await threads.run(int)
        threads.close()

    asyncio.run(work())


def test_a_thread_whose_caller_left_is_still_busy() -> None:
    """A slot belongs to the work, not to who asked for it: threads are never over-booked."""

    async def work() -> None:
        threads, go, began = (
            ThreadPool("test", 1, timeout=0.05),
            threading.Event(),
            threading.Event(),
        )

        def block() -> None:
            began.set()
            go.wait(10)

        caller = asyncio.create_task(threads.run(block))
        await asyncio.to_thread(began.wait, 10)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        with pytest.raises(Unavailable):
            await threads.run(int)
        go.set()
        threads.timeout = 10
        assert 0 == await threads.run(int)
        threads.close()

    asyncio.run(work())
