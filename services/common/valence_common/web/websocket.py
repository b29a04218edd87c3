"""WebSockets as the server speaks them: which request begins one, and what bounds it.

A request that is not wholly a handshake (RFC 6455, section 4.2.1) is answered as HTTP, so that no
byte after it is read in two ways and the library below never meets what it cannot read.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

MAX_LINE_BYTES: Final = 8_000  # websockets reads no longer line
MAX_FRAGMENTS: Final = 1_000  # of one message: empty ones cost memory, too
CLOSE_SECONDS: Final = 2.0

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TOKENS: Final = re.compile(rb"%b(?:[ \t]*,[ \t]*%b)*" % (_TOKEN, _TOKEN))

Fields = Sequence[tuple[bytes, bytes]]


def is_handshake(method: bytes, version: str, target: bytes, fields: Fields) -> bool:
    """Whether a request's head asks for a WebSocket, in full and in one reading only."""

    def values(name: bytes) -> list[bytes]:
        return [value for known, value in fields if known == name]

    options = b",".join(values(b"connection")).lower().split(b",")
    return (
        method == b"GET"
        and version == "1.1"
        and target.startswith(b"/")
        and target.isascii()
        and len(target) <= MAX_LINE_BYTES
        and all(len(name) + len(value) <= MAX_LINE_BYTES for name, value in fields)
        and b"upgrade" in {option.strip() for option in options}
        and [value.lower() for value in values(b"upgrade")] == [b"websocket"]
        and values(b"sec-websocket-version") == [b"13"]
        and [_is_nonce(value) for value in values(b"sec-websocket-key")] == [True]
        and all(_TOKENS.fullmatch(value) for value in values(b"sec-websocket-protocol"))
        and len(values(b"origin")) <= 1
        and not values(b"transfer-encoding")
        and not values(b"content-length")
    )


def _is_nonce(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False


class HardenedWebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket that ends when it should, whatever its peer reads, sends or answers.

    When the process stops, the application closes its connections; one that is still open a moment
    later is cut off.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = CLOSE_SECONDS

    def shutdown(self) -> None:
        """Leave the farewell to the application, for a moment."""
        self.loop.call_later(CLOSE_SECONDS, self._cut_off)

    async def run_asgi(self) -> None:
        """Run the application; what its peer has not read a moment after that is lost."""
        await super().run_asgi()
        if not self.disconnected:
            self.loop.call_later(CLOSE_SECONDS + 1, self._abort)

    async def send(self, message: Any) -> None:
        """Send; a refusal is a whole answer, which uvicorn would call no answer in its log."""
        await super().send(message)
        refusal = message["type"] == "websocket.http.response.body"
        if refusal and not message.get("more_body", False):
            self.handshake_complete = True

    def handle_ping(self) -> None:
        """Answer a ping, unless the answers before it have not been read."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        """Take a part of a message; one in too many parts is too large."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.send_close(1009)
            self.handle_parser_exception()

    def _cut_off(self) -> None:
        if self.handshake_complete and not self.disconnected:
            super().shutdown()
        self._abort()

    def _abort(self) -> None:
        if not self.disconnected:
            self.transport.abort()


def without_extensions(fields: Fields) -> list[tuple[bytes, bytes]]:
    """A handshake's fields without what would be declined: nothing is compressed here."""
    return [(name, value) for name, value in fields if name != b"sec-websocket-extensions"]
