"""Streaming downloads: complete or visibly not, compressed on request."""

import asyncio
import contextlib
import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message, Scope

from valence_common.problems import Unavailable
from valence_common.web import streaming
from valence_common.web.streaming import StreamedFile, accepts_gzip


class Sent(list[Message]):
    """Collects what a server sends; the client stops reading after `limit` messages."""

    def __init__(self, limit: int = 1_000):
        super().__init__()
        self.limit = limit

    async def __call__(self, message: Message) -> None:
        if len(self) >= self.limit:
            await asyncio.Event().wait()
        self.append(message)

    @property
    def ended(self) -> bool:
        return self[-1]["type"] == "http.response.body" and not self[-1].get("more_body")


async def _three_pieces(error: Exception | None = None) -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"piece"
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("error", "limit", "ended"),
    [(None, 1_000, True), (Unavailable("postgres"), 1_000, False), (None, 2, False)],
    ids=["whole", "Postgres goes away", "the client reads no further"],
)
def test_only_a_complete_download_has_an_end(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, limit: int, ended: bool
) -> None:
    """Otherwise the server closes the connection; the slot is released in any case."""
    monkeypatch.setattr(streaming, "WRITE_TIMEOUT_SECONDS", 0.2)
    sent, slot, closed = Sent(limit), contextlib.ExitStack(), []
    slot.callback(closed.append, True)
    scope: Scope = {"type": "http", "asgi": {"spec_version": "2.3"}}

    async def answer() -> None:
        await StreamedFile(_three_pieces(error), "x.json", slot)(scope, _silence, sent)

    asyncio.run(asyncio.wait_for(answer(), 5))
    assert ended == sent.ended
    assert [True] == closed


def test_a_download_does_not_last_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """However steadily its client reads: it holds a slot that others wait for."""
    monkeypatch.setattr(streaming, "MAX_SECONDS", 0.2)
    sent, turn, closed = Sent(10**9), contextlib.ExitStack(), []
    turn.callback(closed.append, True)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"piece"
            await asyncio.sleep(0.01)

    async def answer() -> None:
        scope: Scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        await StreamedFile(endless(), "x.json", turn)(scope, _silence, sent)

    asyncio.run(asyncio.wait_for(answer(), 5))
    assert len(sent) > 2
    assert not sent.ended
    assert [True] == closed


def test_the_page_says_how_long_a_download_may_take() -> None:
    """The tests above shorten these times."""
    page = (Path(__file__).parents[3] / "docs/batches.md").read_text("utf-8")
    times = f"{streaming.WRITE_TIMEOUT_SECONDS:g}", f"{streaming.MAX_SECONDS / 60:g}"
    assert [times] == re.findall(r"read nothing for (\d+) s, or (\d+) minutes", page)


async def _silence() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def test_partial_compressed_download_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off after three pieces: all three can be decompressed, and the stream has no end."""
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 4)
    sent, scope = Sent(), {"type": "http", "asgi": {"spec_version": "2.3"}}
    pieces = _three_pieces(Unavailable("postgres"))

    async def answer() -> None:
        download = StreamedFile(pieces, "x.csv", contextlib.ExitStack(), compressed=True)
        await download(scope, _silence, sent)

    asyncio.run(asyncio.wait_for(answer(), 5))
    head, *bodies = sent
    assert (b"content-encoding", b"gzip") in head["headers"]
    assert 4 == max(len(body["body"]) for body in bodies)
    unzip = zlib.decompressobj(wbits=31)
    assert b"piece" * 3 == unzip.decompress(b"".join(body["body"] for body in bodies))
    assert not unzip.eof


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("x-gzip, br", False),
        ("*", False),
    ],
)
def test_gzip_is_negotiated(asked: str, taken: bool) -> None:
    """By its name; a weight of zero declines it."""
    scope = {"type": "http", "headers": [(b"accept-encoding", asked.encode())]}
    assert taken == accepts_gzip(Request(scope))
