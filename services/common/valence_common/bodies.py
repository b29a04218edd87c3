"""Strict request bodies: what may come in at all, before any field is looked at.

One JSON value in UTF-8, of bounded size and depth, without NaN, lone surrogates, NUL or repeated
keys; or one URL-encoded form. Everything else is refused here with a 4xx, whatever the route.
"""

import asyncio
import contextlib
import json
import math
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.params import Form
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from valence_common.access import Access
from valence_common.problems import FieldError, Invalid, TooLarge, Unprocessable, UnsupportedMedia

MAX_DEPTH = 32
MAX_VALUES = 200_000
MIN_BYTES_PER_SECOND = 16 * 1024
LINGER_SECONDS = 1.0
LINGER_BYTES = 1024 * 1024
IN_THREAD_BYTES = 64 * 1024  # a larger body is parsed in a thread, between other requests' turns

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class Late(Invalid):
    """The body did not arrive in time; what may still come of it is not read."""

    detail = "The request body did not arrive in time"

    def __init__(self) -> None:
        super().__init__(headers={"Connection": "close"})


def loads(body: bytes) -> Any:
    """Parse one strict JSON value; raises `Invalid`, or `Unprocessable` naming the rule."""
    return _consume(bytearray(body))


def _consume(body: bytearray) -> Any:
    """`loads`, emptying `body` on the way: a large one must not stand in memory three times."""
    _check_shape(body)
    suspect = _SUSPECT.search(body) is not None
    try:
        text = body.decode("utf-8")
        body.clear()
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_not_a_number, parse_float=_finite
        )
    except (ValueError, RecursionError):
        raise Invalid("The request body is not valid JSON in UTF-8") from None
    if suspect:
        _check_strings(value)
    return value


def _check_shape(body: bytearray) -> None:
    """Refuse what would cost far more to parse than its bytes: too deep, or too many values."""
    if sum(map(body.count, (b",", b"[", b"{"))) <= MAX_DEPTH:
        return
    bare = _STRING.sub(b"", body)
    if sum(map(bare.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise Invalid(f"The request body holds more than {MAX_VALUES} values")
    depth = 0
    for bracket in re.finditer(rb"[\[\]{}]", bare):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise Invalid(f"The request body is nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        _refuse("unique_keys", "An object repeats a key")
    return result


def _not_a_number(_: str) -> NoReturn:
    _refuse("finite_number", "NaN and Infinity are not JSON")


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        _refuse("finite_number", "A number is out of range")
    return number


def _check_strings(value: Any) -> None:
    """Refuse NUL and lone surrogates, which Postgres and UTF-8 cannot hold."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\0" in item or not _encodable(item):
                _refuse("plain_text", "Text may not hold NUL or lone surrogates")
        elif isinstance(item, dict):
            pending += item.keys()
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _encodable(item: str) -> bool:
    try:
        item.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refuse(rule: str, message: str) -> NoReturn:
    raise Unprocessable([FieldError("body", rule, message)])


class StrictRequest(Request):
    """A request whose body is read before its handler runs, bounded in size, time and kind."""

    _value: Any = None

    async def read(self, media_type: str, *, max_bytes: int, patience: float) -> None:
        """Read and check the body; one that pauses for `patience` seconds, or trickles, ends it."""
        try:
            await self._read(media_type, max_bytes, patience)
        except TooLarge:
            await self._linger(max_bytes + LINGER_BYTES)
            raise

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

    async def _read(self, media_type: str, max_bytes: int, patience: float) -> None:
        too_large = TooLarge(f"The request body is over {max_bytes} bytes")
        declared = self.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared[:20]) > max_bytes:
            raise too_large
        self._check_kind(media_type)
        clock = asyncio.get_running_loop().time
        started, body = clock(), bytearray()
        stream = self.stream()
        while True:
            deadline = started + patience + len(body) / MIN_BYTES_PER_SECOND
            try:
                async with asyncio.timeout_at(deadline):
                    part = await anext(stream, None)
            except TimeoutError:
                raise Late from None
            if part is None:
                break
            body += part
            if len(body) > max_bytes:
                raise too_large
        if media_type == JSON_TYPE:
            # FastAPI asks for the body to learn whether there is one, then for its value.
            self._body = bytes(body[:1])
            large = len(body) > IN_THREAD_BYTES
            self._value = await asyncio.to_thread(_consume, body) if large else _consume(body)
        else:
            self._body = bytes(body)

    def _check_kind(self, media_type: str) -> None:
        if self._all("content-encoding").strip().lower() not in {"", "identity"}:
            raise UnsupportedMedia("Compressed request bodies are not accepted")
        kind, _, parameters = self._all("content-type").partition(";")
        charset = parameters.strip().lower().replace('"', "")
        if kind.strip().lower() != media_type or charset not in {"", "charset=utf-8"}:
            raise UnsupportedMedia(f"The request body must be {media_type} in UTF-8")

    def _all(self, name: str) -> str:
        """A field's value; sent twice, it is the list that no single value is equal to."""
        return ", ".join(self.headers.getlist(name))

    async def json(self) -> Any:
        """The body as the strict JSON value that `read` found."""
        return self._value


def strict(limit: str) -> type[APIRoute]:
    """A route class whose bodies are strict and end at the setting named `limit` (bytes).

    Credentials come first: nobody's body is read before we know who sends it, where that matters.
    A route that takes a form is known by its parameters; all others take JSON.
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
                if body is None:
                    return await handle(request)
                settings = request.app.state.settings
                inner = StrictRequest(request.scope, request.receive)
                await inner.read(
                    media_type,
                    max_bytes=getattr(settings, limit),
                    patience=settings.body_timeout_seconds,
                )
                return await handle(inner)

            return strictly

    return StrictRoute


def _all_dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for child in dependant.dependencies:
        yield from _all_dependants(child)
