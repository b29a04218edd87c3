"""A batch in JSON as it comes: texts are taken out of their list, what is left is one small value.

So a body that is one JSON value never stands in memory as a whole, as text or as a list of texts.
"""

import re
from typing import Any, Final

from valence_common.problems import FieldError, Invalid, Unprocessable
from valence_common.web.strict_json import MAX_DEPTH, loads
from valence_inference.uploads.chunking import Chunker

MAX_REST_BYTES: Final = 64 * 1024
"""All that is no text, without white space."""

MAX_ESCAPED_BYTES: Final = len(rb"\ud83d\ude00")

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
    """The strings of the list `texts` in a JSON object, which go to a packer.

    All else is collected, and is a strict JSON value (`values.loads`) in which the list is empty.
    """

    def __init__(self, chunker: Chunker, *, max_text_characters: int):
        self.rest: Any = None
        self._chunker = chunker
        self._max_pending = max(MAX_REST_BYTES, MAX_ESCAPED_BYTES * max_text_characters) + 2
        self._pending = b""
        self._rest = bytearray()
        self._marks: tuple[bytes, bytes] = (b"", b"")  # the last two tokens that are no space
        self._depth = 0
        self._texts_seen = self._in_texts = False  # the list of texts
        self._previous: bytes = b"["  # in it, the last token: an opening bracket, a text or a comma
        self._ended = False

    def feed(self, part: bytes) -> None:
        """Take the next part; raises `Invalid`, or `Unprocessable` for the first bad text."""
        data, at = self._pending + part, 0
        while at < len(data):
            before, inside = at, self._in_texts
            at = self._items(data, at) if inside else self._token(data, at)
            if (before, inside) == (at, self._in_texts):
                break
        self._pending = data[at:]
        if len(self._pending) > self._max_pending:
            if self._in_texts:
                self._chunker.reject("string_too_long", "The text is too long")
            raise _too_long()

    def end(self) -> None:
        """There are no more parts: `rest` is the value without its texts."""
        self._ended = True
        self.feed(b"")
        if self._pending or self._in_texts:
            raise Invalid(_NOT_JSON)
        self.rest = loads(self._rest)
        if self._chunker.total and isinstance(self.rest, dict):
            self.rest["texts"] = ["…"]

    def _items(self, data: bytes, at: int) -> int:
        """Take what there is of the list; returns the place of what must wait for more."""
        while self._previous != b'"' and (item := _ITEM.match(data, at)):
            self._add(item[1])
            self._previous, at = item[2], item.end()
            if self._previous == b"]":
                return self._close(at)
        at = _SPACE.match(data, at).end()  # type: ignore[union-attr] # matches always
        mark = data[at : at + 1]
        if mark == b"":
            return at
        if self._previous == b'"':
            if mark not in b",]":
                raise Invalid(_NOT_JSON)
            self._previous = mark
            return self._close(at + 1) if mark == b"]" else at + 1
        if mark == b"]" and self._previous == b"[":
            return self._close(at + 1)
        if mark == b'"':
            if string := _STRING.match(data, at):
                self._add(string[0])
                self._previous, at = b'"', string.end()
            return at
        return self._reject(data, at, mark)

    def _close(self, at: int) -> int:
        self._in_texts = False
        self._rest += b"]"
        self._depth -= 1
        return at

    def _add(self, string: bytes) -> None:
        try:
            text = _plain(string) or loads(string)
        except Unprocessable as refusal:
            error = refusal.errors[0]
            self._chunker.reject(error.rule, error.message)
        self._chunker.add(text)

    def _reject(self, data: bytes, at: int, mark: bytes) -> int:
        """Something that is no string stands in the list, or no JSON at all."""
        if mark in b"[{":
            self._chunker.add(None)
        literal = _LITERAL.match(data, at)
        if literal is None:
            raise Invalid(_NOT_JSON)
        if literal.end() == len(data) and not self._ended:
            return at
        if _SCALAR.fullmatch(literal[0]):
            self._chunker.add(None)
        raise Invalid(_NOT_JSON)

    def _token(self, data: bytes, at: int) -> int:
        """Take one token that is not in the list; returns the same place if it is not whole."""
        space = _SPACE.match(data, at)
        if space is not None and space.end() > at:
            if not self._rest.endswith(b" "):
                self._rest += b" "
            return space.end()
        found = _STRING.match(data, at) or _MARK.match(data, at)
        if found is None:
            found = _LITERAL.match(data, at)
            if found is None or (found.end() == len(data) and not self._ended):
                return at
        token = found[0]
        self._rest += token
        if len(self._rest) > MAX_REST_BYTES:
            raise _too_long()
        if token in b"[{":
            self._open(token)
        elif token in b"]}":
            self._depth -= 1
        self._marks = (self._marks[1], token)
        return found.end()

    def _open(self, token: bytes) -> None:
        if token == b"[" and self._depth == 1 and self._marks[1] == b":":
            self._in_texts = _is_texts(self._marks[0])
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Invalid(f"The request body is nested deeper than {MAX_DEPTH} levels")
        if self._in_texts:
            if self._texts_seen:
                raise Unprocessable([FieldError("body", "unique_keys", "An object repeats a key")])
            self._texts_seen, self._previous = True, b"["


def _plain(string: bytes) -> str | None:
    """What `loads` makes of a string that has nothing odd in it, most of the time and sooner."""
    return string[1:-1].decode("ascii") if _PLAIN.fullmatch(string) else None


def _is_texts(key: bytes) -> bool:
    """Whether a token is the name of the list, however it is escaped."""
    try:
        return bool(loads(key) == "texts")
    except (Invalid, Unprocessable):
        return False


def _too_long() -> Unprocessable:
    message = f"Beside its texts a batch is at most {MAX_REST_BYTES} bytes"
    return Unprocessable([FieldError("body", "too_long", message)])
