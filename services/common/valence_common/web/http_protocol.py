"""HTTP/1.1 with limits: uvicorn's httptools protocol, hardened.

uvicorn with httptools rejects smuggled requests, but accepts headers of any size and waits for them
for ever. `HardenedHttpProtocol` limits the size, fields and time of each head, and the number of
connections.
"""

import asyncio
import functools
import http
import json
import resource
import socket

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from valence_common.problems import MEDIA_TYPE
from valence_common.web import websocket
from valence_common.web.middleware import SECURITY_HEADERS

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
HEADER_SECONDS = 10.0
BACKLOG = 2048
MAX_CONNECTIONS = 8000


@functools.cache
def max_connections() -> int:
    """Return the connection limit of a port, which leaves descriptors for everything else.

    Raise the process's soft limit of descriptors first, as shells set it low. asyncio accepts a
    whole backlog before any of it can be rejected, and floods the log when descriptors run out.
    """
    reserved = BACKLOG + 192
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + reserved
    limit = max(soft, wanted if hard == resource.RLIM_INFINITY else min(hard, wanted))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(BACKLOG // 32, min(MAX_CONNECTIONS, limit - reserved))


class HardenedHttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 with limits on connections, and on the size, fields and time of each head."""

    _status = http.HTTPStatus.BAD_REQUEST
    _unread_bytes = 0
    _head_bytes = 0
    _head_count = 0
    _in_head = True
    _is_handshake = False
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first head, or abort a connection beyond the limit."""
        super().connection_made(transport)
        # asyncio does so only for sockets made with IPPROTO_TCP, which `socket.create_server` are
        # not. Without it a response written in two parts waits for the client's delayed ACK: 40 ms.
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > max_connections():
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer."""
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Limit data that neither completes a head nor belongs to a body: heads, trailers."""
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MAX_HEADER_BYTES:
            self._answer_large_head()

    def on_message_begin(self) -> None:
        """Start the timer of the next head on a keep-alive connection."""
        super().on_message_begin()
        if not self._in_head:
            self._expect_head()

    def on_url(self, url: bytes) -> None:
        """Limit the length of the target."""
        super().on_url(url)
        if len(self.url) > MAX_HEADER_BYTES:
            self._reject_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Limit the fields and their bytes; trailers count too, but are dropped."""
        self._head_count += 1
        self._head_bytes += len(name) + len(value)
        if self._head_count > MAX_HEADERS or self._head_bytes > MAX_HEADER_BYTES:
            self._reject_head()
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the complete head; the body has its own limits."""
        self._head_arrived()
        self._unread_bytes = 0
        version = self.parser.get_http_version()
        hosts = [value for name, value in self.headers if name == b"host"]
        # RFC 9112, section 3.2: exactly one Host, except in HTTP/1.0.
        if version not in {"1.0", "1.1"} or (version == "1.1" and len(hosts) != 1):
            raise httptools.HttpParserCallbackError("not HTTP/1.1 with one host")
        encodings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if any(encoding.lower() != b"chunked" for encoding in encodings):
            raise httptools.HttpParserCallbackError("unknown transfer encoding")
        busy = bool(self.cycle) and not self.cycle.response_complete
        self._is_handshake = not busy and websocket.is_handshake(
            self.parser.get_method(), version, self.url, self.headers
        )
        super().on_headers_complete()
        if self.parser.should_upgrade() and not self._should_upgrade():
            # The upgrade is declined by an HTTP response; further data may be in another protocol.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Restart the count: the route limits the body."""
        self._unread_bytes = 0
        super().on_body(body)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol."""
        self.headers[:] = websocket.without_extensions(self.headers)
        super().handle_websocket_upgrade()

    def _should_upgrade(self) -> bool:
        return self._is_handshake and self._should_upgrade_to_ws()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: any client can send an upgrade header."""

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid head with a problem document, then close."""
        del msg
        self._head_arrived()
        if self.transport.is_closing():
            return
        body = json.dumps(
            {
                "type": "about:blank",
                "title": self._status.phrase,
                "status": self._status.value,
                "detail": "The HTTP request could not be read",
                "instance": "/",
                "request_id": "",
            }
        ).encode()
        fields = {
            "Content-Type": MEDIA_TYPE,
            "Content-Length": len(body),
            "Connection": "close",
            **SECURITY_HEADERS,
        }
        head = f"HTTP/1.1 {self._status.value} {self._status.phrase}\r\n" + "".join(
            f"{name.lower()}: {value}\r\n" for name, value in fields.items()
        )
        self.transport.write(f"{head}\r\n".encode() + body)
        self.transport.close()

    def _expect_head(self) -> None:
        self._in_head, self._head_bytes, self._head_count = True, 0, 0
        self._head_timer = self.loop.call_later(HEADER_SECONDS, self._on_head_timeout)

    def _head_arrived(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._status = http.HTTPStatus.REQUEST_TIMEOUT
        self.send_400_response("")

    def _reject_head(self) -> None:
        """Raise from within the parser, which turns the error into `send_400_response`."""
        self._status = http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise httptools.HttpParserCallbackError("head too large")

    def _answer_large_head(self) -> None:
        self._status = http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self.send_400_response("")
