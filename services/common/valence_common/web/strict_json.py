"""Strict JSON, checked before any field: UTF-8, of limited depth and number of values.

NaN, lone surrogates, NUL and repeated keys are rejected.
"""

import json
import math
import re
from typing import Any, NoReturn

from valence_common.problems import FieldError, Invalid, Unprocessable

MAX_DEPTH = 32
MAX_VALUES = 200_000

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


def loads(body: bytes | bytearray) -> Any:
    """Parse one strict JSON value; raise `Invalid`, or `Unprocessable` naming the rule."""
    return loads_and_free(bytearray(body))


def loads_and_free(body: bytearray) -> Any:
    """Parse as `loads` does, and empty `body`, so that a large body is in memory twice at most."""
    _check_shape(body)
    suspect = _SUSPECT.search(body) is not None
    try:
        text = body.decode("utf-8")
        body.clear()
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        raise Invalid("The request body is not valid JSON in UTF-8") from None
    if suspect:
        _check_strings(value)
    return value


def _check_shape(body: bytearray) -> None:
    """Reject bodies that cost far more to parse than their size: too deep, or too many values."""
    if sum(map(body.count, (b",", b"[", b"{"))) <= MAX_DEPTH:
        return
    structure = _STRING.sub(b"", body)
    if sum(map(structure.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise Invalid(f"The request body holds more than {MAX_VALUES} values")
    depth = 0
    for bracket in re.finditer(rb"[\[\]{}]", structure):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise Invalid(f"The request body is nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        _reject("unique_keys", "An object repeats a key")
    return result


def _not_a_number(_: str) -> NoReturn:
    _reject("finite_number", "NaN and Infinity are not JSON")


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        _reject("finite_number", "A number is out of range")
    return number


def _check_strings(value: Any) -> None:
    """Reject NUL and lone surrogates, which Postgres and UTF-8 cannot represent."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\0" in item or not _encodable(item):
                _reject("plain_text", "Text may not hold NUL or lone surrogates")
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


def _reject(rule: str, message: str) -> NoReturn:
    raise Unprocessable([FieldError("body", rule, message)])


# Shared: `json.loads` with hooks creates a decoder for each call.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_not_a_number, parse_float=_finite
)
