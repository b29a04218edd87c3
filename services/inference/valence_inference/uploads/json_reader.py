"""Incremental reading of a JSON batch: texts are taken from their list while the body arrives.

The body never is in memory as a whole. Parsed at once into a list of strings, it could take many
times its size: a string with an emoji takes four bytes per character, and a body of short texts
holds millions of strings before their number can be checked.
"""

import re
from typing import Any, Final

from valence_common.problems import FieldError, Invalid, Unprocessable
from valence_common.web.strict_json import MAX_DEPTH, loads
from valence_inference.uploads.chunking import Chunker

MAX_REST_BYTES: Final = 64 * 1024
"""Everything but the texts, without white space."""

MAX_ESCAPED_BYTES: Final = len(rb"\ud83d\ude00")
"""The longest escape sequence of one character."""

_SPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_ITEM = re.compile(rb'[ \t\n\r]*+("(?:[^"\\]|\\.)*+")[ \t\n\r]*+([,\]])', re.DOTALL)
_PLAIN = re.compile(rb'"[ !#-\[\]-~]*+"')
_MARK = re.compile(rb"[\[\]{}:,]")
_LITERAL = re.compile(rb'[^ \t\n\r"\[\]{}:,]++')
_SCALAR = re.compile(
    rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null|NaN|-?Infinity"
)

_NOT_JSON: Final = "The request body is not valid JSON in UTF-8"


class JsonReader:
    """Passes the strings of the list `texts` in a JSON object to a chunker.

    Everything else is collected as `rest`: one strict JSON value (`strict_json.loads`), with a
    placeholder for the texts.
    """

    def __init__(self, chunker: Chunker, *, max_text_characters: int):
        self.rest: Any = None
        self._chunker = chunker
        self._max_pending = max(MAX_REST_BYTES, MAX_ESCAPED_BYTES * max_text_characters) + 2
        self._pending = b""
        self._rest = bytearray()
        self._last_tokens: tuple[bytes, bytes] = (b"", b"")  # without white space
        self._depth = 0
        self._texts_seen = self._in_texts = False
        self._previous: bytes = b"["  # within the texts: an opening bracket, a quote, or a comma
        self._ended = False

    def feed(self, part: bytes) -> None:
        """Read the next part; raise `Invalid`, or `Unprocessable` for the first invalid text."""
        data, offset = self._pending + part, 0
        while offset < len(data):
            before, in_texts = offset, self._in_texts
            offset = self._read_items(data, offset) if in_texts else self._read_token(data, offset)
            if (before, in_texts) == (offset, self._in_texts):
                break
        self._pending = data[offset:]
        if len(self._pending) > self._max_pending:
            if self._in_texts:
                self._chunker.reject("string_too_long", "The text is too long")
            raise _too_long()

    def end(self) -> None:
        """End the body: parse `rest`."""
        self._ended = True
        self.feed(b"")
        if self._pending or self._in_texts:
            raise Invalid(_NOT_JSON)
        self.rest = loads(self._rest)
        if self._chunker.total and isinstance(self.rest, dict):
            self.rest["texts"] = ["…"]

    def _read_items(self, data: bytes, offset: int) -> int:
        """Read whole items of the list; return the offset of what is still incomplete."""
        while self._previous != b'"' and (item := _ITEM.match(data, offset)):
            self._add(item[1])
            self._previous, offset = item[2], item.end()
            if self._previous == b"]":
                return self._close(offset)
        offset = _SPACE.match(data, offset).end()  # type: ignore[union-attr] # always matches
        mark = data[offset : offset + 1]
        if mark == b"":
            return offset
        if self._previous == b'"':
            if mark not in b",]":
                raise Invalid(_NOT_JSON)
            self._previous = mark
            return self._close(offset + 1) if mark == b"]" else offset + 1
        if mark == b"]" and self._previous == b"[":
            return self._close(offset + 1)
        if mark == b'"':
            if string := _STRING.match(data, offset):
                self._add(string[0])
                self._previous, offset = b'"', string.end()
            return offset
        return self._reject(data, offset, mark)

    def _close(self, offset: int) -> int:
        self._in_texts = False
        self._rest += b"]"
        self._depth -= 1
        return offset

    def _add(self, string: bytes) -> None:
        try:
            text = _parse_plain(string) or loads(string)
        except Unprocessable as error:
            first = error.errors[0]
            self._chunker.reject(first.rule, first.message)
        self._chunker.add(text)

    def _reject(self, data: bytes, offset: int, mark: bytes) -> int:
        """Reject an item that is not a string, or not JSON; return `offset` if it is incomplete."""
        if mark in b"[{":
            self._chunker.add(None)
        literal = _LITERAL.match(data, offset)
        if literal is None:
            raise Invalid(_NOT_JSON)
        if literal.end() == len(data) and not self._ended:
            return offset
        if _SCALAR.fullmatch(literal[0]):
            self._chunker.add(None)
        raise Invalid(_NOT_JSON)

    def _read_token(self, data: bytes, offset: int) -> int:
        """Read one token outside the list; return the same offset if it is incomplete."""
        space = _SPACE.match(data, offset)
        if space is not None and space.end() > offset:
            if not self._rest.endswith(b" "):
                self._rest += b" "
            return space.end()
        match = _STRING.match(data, offset) or _MARK.match(data, offset)
        if match is None:
            match = _LITERAL.match(data, offset)
            if match is None or (match.end() == len(data) and not self._ended):
                return offset
        token = match[0]
        self._rest += token
        if len(self._rest) > MAX_REST_BYTES:
            raise _too_long()
        if token in b"[{":
            self._open(token)
        elif token in b"]}":
            self._depth -= 1
        self._last_tokens = (self._last_tokens[1], token)
        return match.end()

    def _open(self, token: bytes) -> None:
        if token == b"[" and self._depth == 1 and self._last_tokens[1] == b":":
            self._in_texts = _is_texts_key(self._last_tokens[0])
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Invalid(f"The request body is nested deeper than {MAX_DEPTH} levels")
        if self._in_texts:
            if self._texts_seen:
                raise Unprocessable([FieldError("body", "unique_keys", "An object repeats a key")])
            self._texts_seen, self._previous = True, b"["


def _parse_plain(string: bytes) -> str | None:
    """Parse a string of printable ASCII without escapes, faster than `loads`; None for others."""
    return string[1:-1].decode("ascii") if _PLAIN.fullmatch(string) else None


def _is_texts_key(key: bytes) -> bool:
    """Return whether a token is the key `texts`, with or without escapes."""
    try:
        return bool(loads(key) == "texts")
    except (Invalid, Unprocessable):
        return False


def _too_long() -> Unprocessable:
    message = f"Everything but the texts may take at most {MAX_REST_BYTES} bytes"
    return Unprocessable([FieldError("body", "too_long", message)])
