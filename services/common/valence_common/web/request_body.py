"""Request bodies as they come in: bounded in size, time and kind, whatever the route.

Most are one strict JSON value (`values`) or one URL-encoded form and are read whole before their
handler runs; a handler that takes its body in parts reads those from the same request.
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
THREAD_THRESHOLD_BYTES = (
    64 * 1024
)  # more than that is parsed in a thread, between other requests' turns

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"

_WORD = r"[\w!#$%&'*+.^`|~-]+"  # a token of RFC 9110, section 5.6.2
_PARAMETER = re.compile(rf'\s*;\s*(?:({_WORD})=({_WORD}|"[^"\\]*"))?', re.ASCII)


class BodyTimeout(Invalid):
    """The body did not arrive in time; what may still come of it is not read."""

    detail = "The request body did not arrive in time"


class ContentType(NamedTuple):
    """A media type: `type/subtype` and the names of parameters in lower case."""

    media_type: str
    parameters: dict[str, str]

    @classmethod
    def parse(cls, value: str) -> "ContentType | None":
        """Read a Content-Type; None when it is malformed or names a parameter twice."""
        kind, semicolon, rest = value.partition(";")
        rest, parameters = semicolon + rest.rstrip(), {}
        while rest:
            found = _PARAMETER.match(rest)
            if found is None or (found[1] and found[1].lower() in parameters):
                return None
            if found[1]:
                parameters[found[1].lower()] = found[2].strip('"')
            rest = rest[found.end() :]
        return cls(kind.strip().lower(), parameters)

    def check(self, accepted: Mapping[str, Collection[str]]) -> None:
        """Raise `UnsupportedMedia` unless it is of an accepted kind, each with the parameters that
        it may have beside `charset=utf-8`.
        """
        known = self.media_type in accepted and self.parameters.keys() <= {
            "charset",
            *accepted[self.media_type],
        }
        if not known or self.parameters.get("charset", "utf-8").lower() != "utf-8":
            kinds = " or ".join(accepted)
            raise UnsupportedMedia(f"The request body must be {kinds} in UTF-8")


class StrictRequest(Request):
    """A request whose body is bounded in size, time and kind."""

    _value: Any = None

    async def read(self, media_type: str, *, max_bytes: int, timeout: float) -> None:
        """Read and check the whole body; one that pauses for `patience` seconds, or trickles, ends
        it.
        """
        body = bytearray()
        self.content_type({media_type: ()})
        async with self.stream_limited(max_bytes=max_bytes, timeout=timeout) as parts:
            async for part in parts:
                body += part
        if media_type == JSON_TYPE:
            # FastAPI asks for the body to learn whether there is one, then for its value.
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
        """The body in parts, as they come; raises `TooLarge` or `Late`.

        Whoever refuses a body before its end raises inside: then the connection ends with the
        answer, and the rest is never read.
        """
        try:
            self._check_length(max_bytes)
            async with contextlib.aclosing(self._parts(max_bytes, timeout)) as parts:
                yield parts
        except DomainError as refusal:
            if not self._stream_consumed:
                refusal.headers["Connection"] = "close"
                if not isinstance(refusal, BodyTimeout):
                    await self._linger(max_bytes + LINGER_BYTES)
            raise

    def content_type(self, accepted: Mapping[str, Collection[str]]) -> ContentType:
        """What the body is; raises `UnsupportedMedia` unless `Media.check` takes it."""
        if self._all("content-encoding").strip().lower() not in {"", "identity"}:
            raise UnsupportedMedia("Compressed request bodies are not accepted")
        media = ContentType.parse(self._all("content-type")) or ContentType("", {})
        media.check(accepted)
        return media

    def _check_length(self, max_bytes: int) -> None:
        declared = self.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared[:20]) > max_bytes:
            raise _too_large(max_bytes)

    async def _parts(self, max_bytes: int, patience: float) -> AsyncGenerator[bytes, None]:
        clock = asyncio.get_running_loop().time
        started, received = clock(), 0
        stream = self.stream()
        while True:
            deadline = started + patience + received / MIN_BYTES_PER_SECOND
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
            asked = clock()
            yield part
            started += clock() - asked  # our own work is not the sender's delay

    async def _linger(self, most: int) -> None:
        """Discard what comes for a moment: closed at once, a peer still sending misses the answer.

        The same as nginx's `lingering_close`. One that waits for "100 Continue" sends nothing yet.
        """
        if "expect" in self.headers:
            return
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(LINGER_SECONDS):
                async for part in self.stream():
                    most -= len(part)
                    if most < 0:
                        return

    def _all(self, name: str) -> str:
        """A field's value; sent twice, it is the list that no single value is equal to."""
        return ", ".join(self.headers.getlist(name))

    async def json(self) -> Any:
        """The body as the strict JSON value that `read` found."""
        return self._value


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The request body is over {max_bytes} bytes")


def strict(max_bytes: int) -> type[APIRoute]:
    """Return a route class whose bodies are strict and at most `max_bytes` long.

    Credentials come first: nobody's body is read before we know who sends it, where that matters.
    A route that takes a form is known by its parameters; all others that have any take JSON. One
    without may ask for a `StrictRequest` and read the parts by itself.
    """

    class StrictRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            calls = [d.call for d in _all_dependants(self.dependant)]
            gates = [call for call in calls if isinstance(call, Access)]
            body = self.body_field
            media_type = FORM_TYPE if body and isinstance(body.field_info, Form) else JSON_TYPE

            async def strictly(request: Request) -> Response:
                for access in gates:
                    await access(request)
                inner = StrictRequest(request.scope, request.receive)
                if body is not None:
                    await inner.read(
                        media_type,
                        max_bytes=max_bytes,
                        timeout=resources(request.app).settings.body_timeout_seconds,
                    )
                return await handle(inner)

            return strictly

    return StrictRoute


def _all_dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for child in dependant.dependencies:
        yield from _all_dependants(child)
