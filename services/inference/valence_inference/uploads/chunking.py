"""Rows packed into chunks as they come: what is kept of a body while the rest of it arrives."""

from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec

from valence_common.problems import FieldError, TooLarge, Unprocessable
from valence_inference.scoring import text_error

CHUNK_BYTES: Final = 512 * 1024
"""A chunk ends early with this much in it, so that none is many times larger than others."""

MAX_ROW_BYTES: Final = 1024 * 1024
"""A row with all its cells, as it is written; an unclosed quote ends here at the latest."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Chunk:
    """Texts that begin at place `start` of their batch; both lists are JSON in UTF-8."""

    start: int
    size: int
    texts: bytes
    rows: bytes | None


@dataclass(frozen=True)
class UploadLimits:
    """What a batch may be: the settings of these names, in characters, texts and bytes."""

    max_text_characters: int
    max_batch_texts: int
    chunk_texts: int
    batch_body_bytes: int


class Chunker:
    """Takes the rows one by one, and judges their texts."""

    def __init__(self, limits: UploadLimits, *, field: str):
        """`field` is what errors call the list of rows."""
        self.total = 0
        self.chunks: list[Chunk] = []
        self.limits = limits
        self._field = field
        self._texts = bytearray()
        self._rows = bytearray()
        self._any_rows = False
        self._size = 0
        self._stored = 0

    def add(self, text: Any, rest: bytes | None = None, *, line: int | None = None) -> None:
        """Take the next row: its text, and what else stands in it as JSON.

        Raises `Unprocessable` naming the row, its `line` if it has one, and the rule.
        """
        limits = self.limits
        if not isinstance(text, str):
            self.reject("string_type", "The text must be a string", line)
        if found := text_error(text, max_characters=limits.max_text_characters):
            self.reject(*found, line)
        if self.total >= limits.max_batch_texts:
            self._reject_more(line)
        if self._size:
            self._texts += b","
            self._rows += b","
        self._texts += _encode(text)
        self._rows += b"null" if rest is None else rest
        self._any_rows |= rest is not None
        self._size += 1
        self.total += 1
        if self._size >= limits.chunk_texts or len(self._texts) + len(self._rows) >= CHUNK_BYTES:
            self.close()

    def close(self) -> None:
        """End the chunk that is being filled."""
        if not self._size:
            return
        rows = b"[%b]" % bytes(self._rows) if self._any_rows else None
        chunk = Chunk(self.total - self._size, self._size, b"[%b]" % bytes(self._texts), rows)
        self.chunks.append(chunk)
        self._stored += len(chunk.texts) + len(rows or b"")
        # JSON writes some characters in six bytes.
        if self._stored > 2 * self.limits.batch_body_bytes:
            raise TooLarge(f"The batch takes over {2 * self.limits.batch_body_bytes} bytes")
        self._texts.clear()
        self._rows.clear()
        self._any_rows, self._size = False, 0

    def reject(self, rule: str, message: str, line: int | None = None) -> NoReturn:
        """Refuse the row that would be the next."""
        place = "" if line is None else f"Line {line}: "
        raise Unprocessable([FieldError(f"{self._field}.{self.total}", rule, place + message)])

    def _reject_more(self, line: int | None) -> NoReturn:
        message = f"At most {self.limits.max_batch_texts} texts"
        if line is None:
            raise Unprocessable([FieldError(self._field, "too_long", message)])
        self.reject("too_long", message, line)
