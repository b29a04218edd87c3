"""A batch in JSON as it comes: texts are taken out of their list, what is left is one small value.

So a body that is one JSON value never stands in memory as a whole, as text or as a list of texts.
"""

import re
from typing import Any, Final

from valence_common.problems import FieldError, Invalid, Unprocessable
from valence_common.web.strict_json import MAX_DEPTH, loads
from valence_inference.uploads.chunking import Packer

MOST_REST_BYTES: Final = 64 * 1024
"""All that is no text, without white space."""

LONGEST_ESCAPE: Final = len(rb"\ud83d\ude00")

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


class Texts:
    """The strings of the list `texts` in a JSON object, which go to a packer.

    All else is collected, and is a strict JSON value (`values.loads`) in which the list is empty.
    """

    def __init__(self, packer: Packer, *, max_text_characters: int):
        self.rest: Any = None
        self._packer = packer
        self._longest = max(MOST_REST_BYTES, LONGEST_ESCAPE * max_text_characters) + 2
        self._pending = b""
        self._rest = bytearray()
        self._marks: tuple[bytes, bytes] = (b"", b"")  # the last two tokens that are no space
        self._depth = 0
        self._seen = self._inside = False  # the list of texts
        self._due: bytes = b"["  # in it, the last token: an opening bracket, a text or a comma
        self._ended = False

    def feed(self, part: bytes) -> None:
        """Take the next part; raises `Invalid`, or `Unprocessable` for the first bad text."""
        data, at = self._pending + part, 0
        while at < len(data):
            before, inside = at, self._inside
            at = self._items(data, at) if inside else self._token(data, at)
            if (before, inside) == (at, self._inside):
                break
        self._pending = data[at:]
        if len(self._pending) > self._longest:
            if self._inside:
                self._packer.refuse("string_too_long", "The text is too long")
            raise _too_long()

    def end(self) -> None:
        """There are no more parts: `rest` is the value without its texts."""
        self._ended = True
        self.feed(b"")
        if self._pending or self._inside:
            raise Invalid(_NOT_JSON)
        self.rest = loads(self._rest)
        if self._packer.total and isinstance(self.rest, dict):
            self.rest["texts"] = ["…"]

    def _items(self, data: bytes, at: int) -> int:
        """Take what there is of the list; returns the place of what must wait for more."""
        while self._due != b'"' and (item := _ITEM.match(data, at)):
            self._add(item[1])
            self._due, at = item[2], item.end()
            if self._due == b"]":
                return self._close(at)
        at = _SPACE.match(data, at).end()  # type: ignore[union-attr] # matches always
        mark = data[at : at + 1]
        if mark == b"":
            return at
        if self._due == b'"':
            if mark not in b",]":
                raise Invalid(_NOT_JSON)
            self._due = mark
            return self._close(at + 1) if mark == b"]" else at + 1
        if mark == b"]" and self._due == b"[":
            return self._close(at + 1)
        if mark == b'"':
            if string := _STRING.match(data, at):
                self._add(string[0])
                self._due, at = b'"', string.end()
            return at
        return self._refuse(data, at, mark)

    def _close(self, at: int) -> int:
        self._inside = False
        self._rest += b"]"
        self._depth -= 1
        return at

    def _add(self, string: bytes) -> None:
        try:
            text = _plain(string) or loads(string)
        except Unprocessable as refusal:
            error = refusal.errors[0]
            self._packer.refuse(error.rule, error.message)
        self._packer.add(text)

    def _refuse(self, data: bytes, at: int, mark: bytes) -> int:
        """Something that is no string stands in the list, or no JSON at all."""
        if mark in b"[{":
            self._packer.add(None)
        literal = _LITERAL.match(data, at)
        if literal is None:
            raise Invalid(_NOT_JSON)
        if literal.end() == len(data) and not self._ended:
            return at
        if _SCALAR.fullmatch(literal[0]):
            self._packer.add(None)
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
        if len(self._rest) > MOST_REST_BYTES:
            raise _too_long()
        if token in b"[{":
            self._open(token)
        elif token in b"]}":
            self._depth -= 1
        self._marks = (self._marks[1], token)
        return found.end()

    def _open(self, token: bytes) -> None:
        if token == b"[" and self._depth == 1 and self._marks[1] == b":":
            self._inside = _is_texts(self._marks[0])
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Invalid(f"The request body is nested deeper than {MAX_DEPTH} levels")
        if self._inside:
            if self._seen:
                raise Unprocessable([FieldError("body", "unique_keys", "An object repeats a key")])
            self._seen, self._due = True, b"["


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
    message = f"Beside its texts a batch is at most {MOST_REST_BYTES} bytes"
    return Unprocessable([FieldError("body", "too_long", message)])
