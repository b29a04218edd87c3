"""Request bodies: how long a sender may take, by the clock of the event loop."""

import asyncio
import time
from collections.abc import Callable

import pytest
from starlette.types import Message, Receive

from valence_common.web.request_body import MIN_BYTES_PER_SECOND, BodyTimeout, StrictRequest

TIMEOUT = 10.0
Advance = Callable[[float], None]


def sender(parts: int, part: bytes, *, seconds: float, advance: Advance) -> Receive:
    """Return a client that takes so many seconds for each part of its body."""
    bodies = [part] * parts

    async def receive() -> Message:
        advance(seconds)
        await asyncio.sleep(0)  # here the loop notices what is overdue
        body = bodies.pop()
        return {"type": "http.request", "body": body, "more_body": bool(bodies)}

    return receive


def read(parts: int, part: bytes, *, seconds: float, work: float = 0) -> int:
    """Read a body, with so many seconds of work on each part; return its length."""

    async def stream() -> int:
        loop, skipped, length = asyncio.get_running_loop(), 0.0, 0

        def advance(seconds: float) -> None:
            nonlocal skipped
            skipped += seconds

        loop.time = lambda: time.monotonic() + skipped
        receive = sender(parts, part, seconds=seconds, advance=advance)
        request = StrictRequest({"type": "http", "headers": []}, receive)
        async with request.stream_limited(max_bytes=2**30, timeout=TIMEOUT) as stream:
            async for received in stream:
                length += len(received)
                advance(work)
        return length

    return asyncio.run(stream())


def test_a_body_that_trickles_times_out() -> None:
    """A client may not hold a request open with a byte now and then."""
    with pytest.raises(BodyTimeout):
        read(100, b"x", seconds=1)


def test_a_body_at_the_least_rate_is_read() -> None:
    """However large it is, and however long it takes."""
    part = b"x" * (2 * MIN_BYTES_PER_SECOND)
    assert 100 * len(part) == read(100, part, seconds=2)


def test_work_on_a_body_is_not_its_senders_delay() -> None:
    """The time between two reads does not count."""
    assert 100 == read(100, b"x", seconds=0, work=TIMEOUT)
