"""Splitting an upload into chunks while it arrives."""

from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec

from valence_common.problems import FieldError, TooLarge, Unprocessable
from valence_inference.batches.submission import Chunk
from valence_inference.scoring import text_error

CHUNK_BYTES: Final = 512 * 1024
"""A chunk ends early at this size, so that chunks take a worker similar times."""

MAX_ROW_BYTES: Final = 1024 * 1024
"""A row with all its cells, as uploaded; a cell with an unclosed quote ends here at the latest."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class UploadLimits:
    """The limits of a batch: the settings of these names, in characters, texts and bytes."""

    max_text_characters: int
    max_batch_texts: int
    chunk_texts: int
    batch_body_bytes: int


class Chunker:
    """Checks rows one by one and collects them into chunks."""

    def __init__(self, limits: UploadLimits, *, field: str):
        """`field` is the name of the list of rows in errors."""
        self.total = 0
        self.chunks: list[Chunk] = []
        self.limits = limits
        self._field = field
        self._texts = bytearray()
        self._rows = bytearray()
        self._has_rows = False
        self._size = 0
        self._chunked_bytes = 0

    def add(self, text: Any, rest: bytes | None = None, *, line: int | None = None) -> None:
        """Add the next row: its text, and what else it holds as JSON.

        Raises `Unprocessable` with the index of the row, its `line` if given, and the rule that the
        text breaks.
        """
        limits = self.limits
        if not isinstance(text, str):
            self.reject("string_type", "The text must be a string", line)
        if error := text_error(text, max_characters=limits.max_text_characters):
            self.reject(*error, line)
        if self.total >= limits.max_batch_texts:
            self._reject_more(line)
        if self._size:
            self._texts += b","
            self._rows += b","
        self._texts += _encode(text)
        self._rows += b"null" if rest is None else rest
        self._has_rows |= rest is not None
        self._size += 1
        self.total += 1
        if self._size >= limits.chunk_texts or len(self._texts) + len(self._rows) >= CHUNK_BYTES:
            self.close()

    def close(self) -> None:
        """End the current chunk; raise `TooLarge` if the chunks are too large together."""
        if not self._size:
            return
        rows = b"[%b]" % bytes(self._rows) if self._has_rows else None
        chunk = Chunk(self.total - self._size, self._size, b"[%b]" % bytes(self._texts), rows)
        self.chunks.append(chunk)
        self._chunked_bytes += len(chunk.texts) + len(rows or b"")
        # JSON escapes can be larger than the upload: a control character takes six bytes.
        if self._chunked_bytes > 2 * self.limits.batch_body_bytes:
            raise TooLarge(f"The batch takes over {2 * self.limits.batch_body_bytes} bytes as JSON")
        self._texts.clear()
        self._rows.clear()
        self._has_rows, self._size = False, 0

    def reject(self, rule: str, message: str, line: int | None = None) -> NoReturn:
        """Raise `Unprocessable` for the next row."""
        prefix = "" if line is None else f"Line {line}: "
        raise Unprocessable([FieldError(f"{self._field}.{self.total}", rule, prefix + message)])

    def _reject_more(self, line: int | None) -> NoReturn:
        message = f"At most {self.limits.max_batch_texts} texts"
        if line is None:
            raise Unprocessable([FieldError(self._field, "too_long", message)])
        self.reject("too_long", message, line)
