"""What a request meets on its way to the router: one class for each guard, `web` sets their order.

None of them knows a route; what they refuse is a problem document like every other error.
"""

import asyncio
import re
import time
from collections.abc import Collection
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from valence_common.db import new_id
from valence_common.log import describe
from valence_common.metrics import UNMATCHED, HttpMetrics
from valence_common.problems import Unavailable, problem

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")


class Observation:
    """Gives each request an id, a log line, metrics and the security headers."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics):
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
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
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in (SECURITY_HEADERS | scope["state"].get("headers", {})).items():
                    headers.setdefault(name, value)
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, send_observed)
        finally:
            self.metrics.in_flight.dec()
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        # A client that went away before an answer counts as nginx counts it.
        status = status or 499
        self.metrics.observe(scope["method"], route, status, seconds)
        structlog.get_logger().info(
            "request",
            method=scope["method"][:16],
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
        )


class Hosts:
    """Serves only the hosts that are listed: `name`, or `*.name` for all below it."""

    def __init__(self, app: ASGIApp, allowed: Collection[str]):
        self.app = app
        self.exact = frozenset(name for name in allowed if not name.startswith("*"))
        self.below = tuple(name.removeprefix("*") for name in allowed if name.startswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or self._knows(Headers(scope=scope).get("host", "")):
            await self.app(scope, receive, send)
        else:
            answer = problem(Request(scope), 421, "This host is not served here")
            await answer(scope, receive, send)

    def _knows(self, authority: str) -> bool:
        match = _AUTHORITY.fullmatch(authority.lower())
        return match is not None and (match[1] in self.exact or match[1].endswith(self.below))


class Origins(CORSMiddleware):
    """Lets pages of the listed origins read answers; they send a token, never cookies."""

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
                "Last-Event-ID",
            ),
            expose_headers=(
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "X-Request-ID",
                "Location",
            ),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the library would refuse a preflight in plain text."""
        if _is_preflight(scope) and self._refuses(Headers(scope=scope)):
            answer = problem(Request(scope), 400, "This cross-origin request is not allowed")
            await answer(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _refuses(self, headers: Headers) -> bool:
        return self.preflight_response(headers).status_code != 200


class LastResort:
    """Answers what nothing else caught."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, send_noted)
        except ClientDisconnect:
            return  # nobody is left to answer
        except asyncio.CancelledError:
            # The drain is over, and its request may be tried elsewhere; uvicorn would say 500.
            if not started:
                late = Unavailable("drain")
                headers = late.headers | {"Connection": "close"}
                answer = problem(Request(scope), late.status, late.message, headers=headers)
                await answer(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the last resort: whatever it is, answer it
            structlog.get_logger().error("unhandled", **describe(error))
            if not started:
                detail = "Something went wrong on our side; the request id helps us to find it"
                await problem(Request(scope), 500, detail)(scope, receive, send)


class PlainPaths:
    """Knows no path that hides a slash: what a proxy reads in `%2F` may not be what we read."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and b"%2f" in scope.get("raw_path", b"").lower():
            await problem(Request(scope), 404, "Not Found")(scope, receive, send)
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
            given: str = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return given
    return str(new_id())
