"""The WebSocket protocol of the server: strict handshakes, and limits on each connection.

A request that is not a complete handshake (RFC 6455, section 4.2.1) is answered as HTTP. So no byte
after it is ambiguous, and the websockets library receives only what it can parse.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

MAX_LINE_BYTES: Final = 8_000  # the limit of the websockets library
MAX_FRAGMENTS: Final = 1_000  # of one message: empty fragments use memory too
CLOSE_SECONDS: Final = 2.0

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TOKENS: Final = re.compile(rb"%b(?:[ \t]*,[ \t]*%b)*" % (_TOKEN, _TOKEN))

Fields = Sequence[tuple[bytes, bytes]]


def is_handshake(method: bytes, version: str, target: bytes, fields: Fields) -> bool:
    """Return whether a request's head is a complete and unambiguous WebSocket handshake."""

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
    """A WebSocket that closes in time, whatever its peer reads, sends or answers.

    When the process stops, the application closes its connections. A connection that is still open
    after `CLOSE_SECONDS` is cut off.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = CLOSE_SECONDS

    def shutdown(self) -> None:
        """Give the application `CLOSE_SECONDS` to close the connection."""
        self.loop.call_later(CLOSE_SECONDS, self._cut_off)

    async def run_asgi(self) -> None:
        """Run the application; afterwards abort a connection whose peer does not read."""
        await super().run_asgi()
        if not self.disconnected:
            self.loop.call_later(CLOSE_SECONDS + 1, self._abort)

    async def send(self, message: Any) -> None:
        """Mark a rejected handshake as complete, so uvicorn does not log an error."""
        await super().send(message)
        is_rejection = message["type"] == "websocket.http.response.body"
        if is_rejection and not message.get("more_body", False):
            self.handshake_complete = True

    def handle_ping(self) -> None:
        """Answer a ping, unless the peer has not read the previous answers."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        """Accept a fragment; a message of too many fragments is too large (1009)."""
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
    """Return a handshake's fields without extensions, all of which are declined."""
    return [(name, value) for name, value in fields if name != b"sec-websocket-extensions"]
