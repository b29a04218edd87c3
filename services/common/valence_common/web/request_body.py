"""Request bodies, limited in size, time and media type on every route.

Most bodies are one strict JSON value (`strict_json`) or one URL-encoded form, and are read before
the handler runs. A handler may also stream the body itself.
"""

import asyncio
import contextlib
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
)
from typing import Any, NamedTuple

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.params import Form
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from valence_common.problems import DomainError, Invalid, TooLarge, UnsupportedMedia
from valence_common.web.access import Access
from valence_common.web.state import resources
from valence_common.web.strict_json import loads_and_free

MIN_BYTES_PER_SECOND = 16 * 1024
LINGER_SECONDS = 1.0
LINGER_BYTES = 1024 * 1024
THREAD_THRESHOLD_BYTES = 64 * 1024  # larger bodies are parsed in a thread

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"

_WORD = r"[\w!#$%&'*+.^`|~-]+"  # a token of RFC 9110, section 5.6.2
_PARAMETER = re.compile(rf'\s*;\s*(?:({_WORD})=({_WORD}|"[^"\\]*"))?', re.ASCII)


class BodyTimeout(Invalid):
    """The body did not arrive in time; the rest is not read."""

    detail = "The request body did not arrive in time"


class ContentType(NamedTuple):
    """A media type; `type/subtype` and the names of parameters are in lower case."""

    media_type: str
    parameters: dict[str, str]

    @classmethod
    def parse(cls, value: str) -> "ContentType | None":
        """Parse a Content-Type; return None if it is malformed or repeats a parameter."""
        media_type, semicolon, rest = value.partition(";")
        rest, parameters = semicolon + rest.rstrip(), {}
        while rest:
            match = _PARAMETER.match(rest)
            if match is None or (match[1] and match[1].lower() in parameters):
                return None
            if match[1]:
                parameters[match[1].lower()] = match[2].strip('"')
            rest = rest[match.end() :]
        return cls(media_type.strip().lower(), parameters)

    def check(self, accepted: Mapping[str, Collection[str]]) -> None:
        """Raise `UnsupportedMedia` unless the media type is accepted.

        `accepted` maps media types to their parameters; all may also have `charset=utf-8`.
        """
        is_accepted = self.media_type in accepted and self.parameters.keys() <= {
            "charset",
            *accepted[self.media_type],
        }
        if not is_accepted or self.parameters.get("charset", "utf-8").lower() != "utf-8":
            media_types = " or ".join(accepted)
            raise UnsupportedMedia(f"The request body must be {media_types} in UTF-8")


class StrictRequest(Request):
    """A request whose body is limited in size, time and media type."""

    _value: Any = None

    async def read(self, media_type: str, *, max_bytes: int, timeout: float) -> None:
        """Read and check the whole body.

        Raise `BodyTimeout` when it pauses for `timeout` seconds, or is slower than
        `MIN_BYTES_PER_SECOND`.
        """
        body = bytearray()
        self.content_type({media_type: ()})
        async with self.stream_limited(max_bytes=max_bytes, timeout=timeout) as parts:
            async for part in parts:
                body += part
        if media_type == JSON_TYPE:
            # FastAPI reads the body only to check that it is not empty, then calls `json`.
            self._body = bytes(body[:1])
            large = len(body) > THREAD_THRESHOLD_BYTES
            self._value = (
                await asyncio.to_thread(loads_and_free, body) if large else loads_and_free(body)
            )
        else:
            self._body = bytes(body)

    @contextlib.asynccontextmanager
    async def stream_limited(
        self, *, max_bytes: int, timeout: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream the body in parts as they arrive; raise `TooLarge` or `BodyTimeout`.

        To reject a body before its end, raise a `DomainError` within the context: the rest is not
        read, and the connection closes after the response.
        """
        try:
            self._check_length(max_bytes)
            async with contextlib.aclosing(self._parts(max_bytes, timeout)) as parts:
                yield parts
        except DomainError as error:
            if not self._stream_consumed:
                error.headers["Connection"] = "close"
                if not isinstance(error, BodyTimeout):
                    await self._linger(max_bytes + LINGER_BYTES)
            raise

    def content_type(self, accepted: Mapping[str, Collection[str]]) -> ContentType:
        """Return the body's media type; raise `UnsupportedMedia` unless it is accepted."""
        if self._header("content-encoding").strip().lower() not in {"", "identity"}:
            raise UnsupportedMedia("Compressed request bodies are not accepted")
        content_type = ContentType.parse(self._header("content-type")) or ContentType("", {})
        content_type.check(accepted)
        return content_type

    def _check_length(self, max_bytes: int) -> None:
        declared = self.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared[:20]) > max_bytes:
            raise _too_large(max_bytes)

    async def _parts(self, max_bytes: int, timeout: float) -> AsyncGenerator[bytes, None]:
        clock = asyncio.get_running_loop().time
        started, received = clock(), 0
        stream = self.stream()
        while True:
            deadline = started + timeout + received / MIN_BYTES_PER_SECOND
            try:
                async with asyncio.timeout_at(deadline):
                    part = await anext(stream, None)
            except TimeoutError:
                raise BodyTimeout from None
            if part is None:
                return
            received += len(part)
            if received > max_bytes:
                raise _too_large(max_bytes)
            yielded = clock()
            yield part
            started += clock() - yielded  # the consumer's work is not the sender's delay

    async def _linger(self, limit: int) -> None:
        """Discard input for a moment, as nginx's `lingering_close` does.

        If the connection closed at once, a client that is still sending would miss the response. A
        client that waits for "100 Continue" is not sending yet.
        """
        if "expect" in self.headers:
            return
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(LINGER_SECONDS):
                async for part in self.stream():
                    limit -= len(part)
                    if limit < 0:
                        return

    def _header(self, name: str) -> str:
        """Return a header's values joined by commas: a repeated header matches no valid value."""
        return ", ".join(self.headers.getlist(name))

    async def json(self) -> Any:
        """Return the strict JSON value that `read` parsed."""
        return self._value


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {max_bytes} bytes")


def strict(max_bytes: int) -> type[APIRoute]:
    """Return a route class whose bodies are strict and at most `max_bytes` long.

    The credential is checked before the body is read. Routes with form parameters accept a form,
    routes with other body parameters JSON. A route without any may take a `StrictRequest` and
    stream the body itself.
    """

    class StrictRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            calls = [d.call for d in _all_dependants(self.dependant)]
            access_checks = [call for call in calls if isinstance(call, Access)]
            body = self.body_field
            media_type = FORM_TYPE if body and isinstance(body.field_info, Form) else JSON_TYPE

            async def strict_handler(request: Request) -> Response:
                for access in access_checks:
                    await access(request)
                inner = StrictRequest(request.scope, request.receive)
                if body is not None:
                    await inner.read(
                        media_type,
                        max_bytes=max_bytes,
                        timeout=resources(request.app).settings.body_timeout_seconds,
                    )
                return await handle(inner)

            return strict_handler

    return StrictRoute


def _all_dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for child in dependant.dependencies:
        yield from _all_dependants(child)
