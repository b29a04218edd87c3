"""The ASGI middleware of every web service; `app` defines the order.

No middleware knows a route. A rejected request gets a problem document, as for every other error.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Collection, Mapping
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected

from valence_common.db import new_id
from valence_common.log import log_fields
from valence_common.metrics import UNMATCHED, HttpMetrics
from valence_common.problems import Unavailable, problem
from valence_common.web.state import request_state

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}

CLOSE_SERVICE_RESTART: Final = 1012
CLOSE_INTERNAL_ERROR: Final = 1011
"""Close codes of a WebSocket (RFC 6455, section 7.4, and its registry)."""

_SERVED = frozenset({"http", "websocket"})
_STARTS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_DISCONNECTED = (ClientDisconnect, ClientDisconnected, WebSocketDisconnect)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")


class RequestLog:
    """Gives each request an id, a log line, metrics and the security headers."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics):
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one WebSocket."""
        if scope["type"] not in _SERVED:
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] in _STARTS:
                status = message.get("status", 101)
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in (SECURITY_HEADERS | request_state(scope).headers).items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] == "websocket":
            stats = _WebSocketStats(receive, send_observed)
            try:
                await self.app(scope, stats.receive, stats.send)
            finally:
                self._record_websocket(scope, status, stats, time.perf_counter() - started)
            return
        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, send_observed)
        finally:
            self.metrics.in_flight.dec()
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        # As nginx does, count 499 for a client that disconnected before the response.
        status = status or 499
        timed = None if request_state(scope).untimed else seconds
        self.metrics.observe(scope["method"], route, status, timed)
        structlog.get_logger().info(
            "request",
            method=scope["method"][:16],
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
        )

    def _record_websocket(
        self, scope: Scope, status: int, stats: "_WebSocketStats", seconds: float
    ) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        status = status or 499
        self.metrics.observe("GET", route, status, None)
        structlog.get_logger().info(
            "websocket",
            route=route,
            status=status,
            code=stats.code,
            seconds=round(seconds, 3),
            messages=stats.messages,
        )


class _WebSocketStats:
    """Counts a WebSocket's messages, and notes its close code."""

    def __init__(self, receive: Receive, send: Send):
        self._receive, self._send = receive, send
        self.messages = 0
        self.code: int | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self.messages += 1
        elif message["type"] == "websocket.disconnect" and self.code is None:
            self.code = message.get("code")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.close":
            self.code = message.get("code", 1000)
        await self._send(message)


class TrustedHosts:
    """Rejects requests for unlisted hosts; `*.example.com` allows all subdomains."""

    def __init__(self, app: ASGIApp, allowed: Collection[str]):
        self.app = app
        self.exact = frozenset(name for name in allowed if not name.startswith("*"))
        self.suffixes = tuple(name.removeprefix("*") for name in allowed if name.startswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in _SERVED or self._is_allowed(Headers(scope=scope).get("host", "")):
            await self.app(scope, receive, send)
        else:
            answer = problem(HTTPConnection(scope), 421, "This host is not served here")
            await answer(scope, receive, send)

    def _is_allowed(self, authority: str) -> bool:
        match = _AUTHORITY.fullmatch(authority.lower())
        return match is not None and (match[1] in self.exact or match[1].endswith(self.suffixes))


class CORS(CORSMiddleware):
    """Allows pages of the listed origins to read responses; they send a token, never cookies.

    Browsers do not apply CORS to WebSockets, so the handshake of another origin is rejected here.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]):
        super().__init__(
            app,
            allow_origins=allowed,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=(
                "Authorization",
                "X-API-Key",
                "X-Request-ID",
                "Idempotency-Key",
                "If-Match",
                "Last-Event-ID",
            ),
            expose_headers=(
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "X-Request-ID",
                "Location",
                "Content-Disposition",
                "ETag",
                "Idempotent-Replayed",
            ),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the library would reject a preflight in plain text."""
        if _is_preflight(scope) and self._is_rejected(Headers(scope=scope)):
            answer = problem(Request(scope), 400, "This cross-origin request is not allowed")
            await answer(scope, receive, send)
        elif scope["type"] == "websocket" and self._is_foreign(Headers(scope=scope)):
            answer = problem(HTTPConnection(scope), 403, "This origin is not allowed")
            await answer(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        return origin is not None and not self.is_allowed_origin(origin)

    def _is_rejected(self, headers: Headers) -> bool:
        return self.preflight_response(headers).status_code != 200


class ErrorBoundary:
    """Answers unhandled errors and cancelled requests."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one WebSocket."""
        started = False

        async def send_tracked(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        async def end(status: int, detail: str, headers: Mapping[str, str], code: int) -> None:
            with contextlib.suppress(*_DISCONNECTED):
                if not started:
                    answer = problem(HTTPConnection(scope), status, detail, headers=headers)
                    await answer(scope, receive, send)
                elif scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": code})

        try:
            await self.app(scope, receive, send_tracked)
        except _DISCONNECTED:
            return  # the client has disconnected
        except asyncio.CancelledError:
            # The drain timed out. The client may retry at another replica, so not uvicorn's 500.
            error = Unavailable("drain")
            headers = error.headers | {"Connection": "close"}
            await end(error.status, error.message, headers, CLOSE_SERVICE_RESTART)
        except Exception as error:  # noqa: BLE001 - the last resort
            structlog.get_logger().error("unhandled", **log_fields(error))
            detail = "An unexpected error occurred; report the request id to the operator"
            await end(500, detail, {}, CLOSE_INTERNAL_ERROR)


class RejectEncodedSlash:
    """Answers 404 to encoded slashes, which proxies decode differently."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] in _SERVED and b"%2f" in scope.get("raw_path", b"").lower():
            await problem(HTTPConnection(scope), 404, "Not Found")(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_preflight(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return False
    headers = Headers(scope=scope)
    return "origin" in headers and "access-control-request-method" in headers


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            request_id: str = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(request_id):
                return request_id
    return str(new_id())
