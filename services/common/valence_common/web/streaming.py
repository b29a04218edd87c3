"""Streaming downloads, with timeouts for clients that stop reading."""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack

import structlog
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from valence_common.problems import DomainError

WRITE_TIMEOUT_SECONDS = 30.0
MAX_SECONDS = 900.0
CHUNK_BYTES = 64 * 1024
GZIP_LEVEL = 4
_GZIP_WINDOW = 31  # zlib's way to ask for gzip's header and checksum

_ZERO_WEIGHT = re.compile(r"q=0(\.0*)?")


class StreamedFile(StreamingResponse):
    """A download saved as `name`; `slot` is closed when it ends, in whichever way.

    A download that cannot be completed is cut off, so the client sees an incomplete response.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        name: str,
        slot: ExitStack,
        *,
        compressed: bool = False,
        media_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        named = {"Content-Disposition": f'attachment; filename="{name}"', **(headers or {})}
        if compressed:
            named["Content-Encoding"] = "gzip"
            pieces = _compressed(pieces)
        super().__init__(pieces, headers=named, media_type=media_type)
        self._slot = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        with self._slot:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send the body in parts, each within the write timeout."""

        async def send_with_timeout(message: Message) -> None:
            body = message.get("body", b"")
            for start in range(0, max(len(body), 1), CHUNK_BYTES):
                part = {"body": body[start : start + CHUNK_BYTES]} if body else {}
                async with asyncio.timeout(WRITE_TIMEOUT_SECONDS):
                    await send({**message, **part})

        try:
            async with asyncio.timeout(MAX_SECONDS):
                await super().stream_response(send_with_timeout)
        except (DomainError, TimeoutError) as error:
            structlog.get_logger().warning("download_broken_off", error=type(error).__name__)


def accepts_gzip(request: Request) -> bool:
    """Return whether `Accept-Encoding` names gzip, with a weight above zero."""
    for part in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() == "gzip":
            return _ZERO_WEIGHT.fullmatch(weight.replace(" ", "")) is None
    return False


async def _compressed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Compress to one gzip stream, flushed after each piece so that a partial one is readable."""
    gzip = zlib.compressobj(GZIP_LEVEL, wbits=_GZIP_WINDOW)

    def compress(piece: bytes) -> bytes:
        return gzip.compress(piece) + gzip.flush(zlib.Z_SYNC_FLUSH)

    async for piece in pieces:
        yield await asyncio.to_thread(compress, piece)
    yield gzip.flush()
