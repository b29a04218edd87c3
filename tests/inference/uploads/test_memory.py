"""Concurrent uploads: neither one user nor many can fill the memory."""

import contextlib
import select
import socket
import uuid
from collections.abc import Iterator

import pytest

from support import raw
from support.memory import forget_peak, peak_bytes
from support.stack import Account, Stack
from valence_common.problems import TooManyRequests, Unavailable
from valence_inference.uploads.memory import FREE_BYTES, UploadMemory

BATCH = "/api/v1/sentiment/analyze/batch"
BODY = b'{"texts":[' + b",".join([b'"%b"' % (b"good " * 1_900)] * 3_300) + b"]}"
"""Nearly 32 MiB."""

ALICE, BOB, CAROL = (uuid.UUID(int=n) for n in range(3))


@contextlib.contextmanager
def sending(stack: Stack, account: Account, body: bytes) -> Iterator[socket.socket]:
    """Send a body without its last byte."""
    fields = [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    fields += [f"{name}: {value}".encode() for name, value in account.headers.items()]
    head = raw.message("POST", BATCH, *fields, close=False)
    with raw.connect(stack.running("inference")[0].url) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head + body[:-1])
        yield connection


def test_one_user_cannot_fill_the_memory(stack: Stack, account: Account) -> None:
    """Two of the largest bodies are held at a time; more get 429, those of other users do not."""
    [inference] = stack.running("inference")
    before = forget_peak(inference.pid)
    with contextlib.ExitStack() as open_ones:
        held = {open_ones.enter_context(sending(stack, account, BODY)) for _ in range(4)}
        while len(held) > 2:
            answered, _, _ = select.select(list(held), [], [], 20)
            assert answered, "more are held than there is memory for"
            for connection in answered:
                [refused] = raw.answers(connection)
                assert (429, "5") == (refused.status, refused.headers["retry-after"])
                held.remove(connection)
        assert peak_bytes(inference.pid) - before <= 4 * len(BODY)
        assert stack.submit(stack.account(), ["good " * 1_900] * 100)
        for connection in held:
            connection.sendall(BODY[-1:])
            assert b"HTTP/1.1 202" == connection.recv(12)
    assert stack.submit(account, ["good " * 1_900] * 100)


def test_released_bytes_are_free_again() -> None:
    """Bytes beyond a body's first 256 KiB count until the reservation is released."""
    memory = UploadMemory(body_bytes=1_000)
    with memory.reserve(ALICE) as first, memory.reserve(ALICE) as second:
        first.grow(FREE_BYTES + 1_500)
        second.grow(FREE_BYTES)
        second.grow(500)
        with pytest.raises(TooManyRequests):
            second.grow(1)
        with memory.reserve(BOB) as third, memory.reserve(CAROL) as fourth:
            third.grow(FREE_BYTES + 2_000)
            fourth.grow(FREE_BYTES)
            with pytest.raises(Unavailable):
                fourth.grow(1)
    with memory.reserve(CAROL) as reservation:
        reservation.grow(FREE_BYTES + 2_000)
