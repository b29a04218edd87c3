"""Splitting an upload into lines while it arrives.

A row can span parts of the body, so the lines of an incomplete row are put back and read again with
the next part. A blocking iterator in the parsing thread would read every row once, but it would
hold the thread for as long as a slow client takes to upload.
"""

from collections import deque
from typing import Final, NoReturn

from valence_inference.uploads.chunking import MAX_ROW_BYTES, Chunker

BLOCK_BYTES: Final = 64 * 1024
BOM: Final = b"\xef\xbb\xbf"

MAX_RETRY_BYTES: Final = 256 * 1024
"""An incomplete row is read again after its own size has arrived, or this much."""

MAX_ROW_LINES: Final = 10_000
"""The characters of the longest text; a cell of short lines with an unclosed quote ends here."""

MIN_MEAN_LINE_BYTES: Final = 16
"""The mean length of lines within quotes in the largest body: an empty line takes as long."""


class NeedMore(Exception):
    """No complete line is left; the next part may bring one."""


class LineReader:
    """An iterator over complete lines, counted from 1, that raises `NeedMore` between parts.

    Lines taken since the last `keep` belong to one row and can be put back.
    """

    def __init__(self, chunker: Chunker, *, lone_cr: bool):
        """A line ends with LF or CR LF, and with `lone_cr` also with CR; no other character counts.

        Invalid lines are rejected through `chunker`, as its next row.
        """
        self.number = 0
        self._chunker = chunker
        self._lone_cr = lone_cr
        self._lines: deque[bytes] = deque()
        self._taken = bytearray()
        self._taken_lines = 0
        self._blank_lines = self._quoted_lines = 0
        self._max_blank_lines = chunker.limits.max_batch_texts
        self._max_quoted_lines = max(
            MAX_ROW_LINES, chunker.limits.batch_body_bytes // MIN_MEAN_LINE_BYTES
        )
        self._buffer = b""
        self._offset = 0
        self._missing_bytes = 0
        self._ended = False

    def feed(self, part: bytes) -> None:
        """Add the next part; read its lines once the reader is `ready`."""
        self._missing_bytes -= len(part)
        self._buffer = self._buffer[self._offset :] + part
        self._offset = 0

    def _split_block(self) -> bool:
        """Split the next block of the buffer into lines; return False if it has no whole line."""
        size = BLOCK_BYTES
        while self._offset < len(self._buffer):
            block = self._buffer[self._offset : self._offset + size]
            last = self._offset + size >= len(self._buffer)
            lines = self._split(block)
            # A CR at the end of the block may be half of a CR LF.
            if not lines[-1].endswith(b"\n") and not (last and self._ended):
                block = block[: -len(lines.pop())]
            if lines:
                self._lines.extend(lines)
                self._offset += len(block)
                return True
            if last:
                return False
            size *= 2
        return False

    def _split(self, data: bytes) -> list[bytes]:
        if self._lone_cr:
            return data.splitlines(keepends=True)
        lines = [line + b"\n" for line in data.split(b"\n")]
        lines[-1] = lines[-1][:-1]
        return lines if lines[-1] else lines[:-1]

    def end(self) -> None:
        """End the body: the last line may have no line ending."""
        self._ended = True

    @property
    def ready(self) -> bool:
        """Whether enough arrived since a row was put back: a growing row is read a few times."""
        return self._missing_bytes <= 0

    @property
    def row_line(self) -> int:
        """The number of the first line of the current row."""
        return self.number - self._taken_lines + 1

    def keep(self) -> None:
        """Consume the lines taken as one row; reject too many lines within quotes."""
        self._quoted_lines += self._taken_lines - 1
        if self._quoted_lines > self._max_quoted_lines:
            message = f"Over {self._max_quoted_lines} lines within quotes in one file"
            self._chunker.reject("too_many_lines", message, self.row_line)
        self._clear()

    def skip(self) -> None:
        """Consume the line taken as a blank line; reject too many of them."""
        self._blank_lines += 1
        if self._blank_lines > self._max_blank_lines:
            message = f"Over {self._max_blank_lines} blank lines in one file"
            self._chunker.reject("too_many_blank", message, self.row_line)
        self._clear()

    def _clear(self) -> None:
        self._taken.clear()
        self._taken_lines = 0

    def put_back(self) -> None:
        """Return the lines taken to the buffer; reject a row or line that is already too long.

        They are kept as one string: as separate lines, short ones take many times the memory.
        """
        unfinished = len(self._taken) + len(self._buffer) - self._offset
        self._missing_bytes = min(unfinished, MAX_RETRY_BYTES)
        first_line = self.row_line if self._taken else self.number + len(self._lines) + 1
        self.number -= self._taken_lines
        if self._taken:  # then all split lines were taken
            self._buffer, self._offset = bytes(self._taken) + self._buffer[self._offset :], 0
        self._clear()
        if unfinished > MAX_ROW_BYTES:
            self._reject_length(first_line)

    def __iter__(self) -> "LineReader":
        return self

    def __next__(self) -> str:
        """Take the next line as text, with its line ending."""
        try:
            text = self.take().decode("utf-8")
        except UnicodeDecodeError:
            self._chunker.reject("utf_8", "Not UTF-8", self.number)
        if "\0" in text:
            self._chunker.reject("plain_text", "Text must not contain NUL", self.number)
        return text

    def take(self) -> bytes:
        """Take the next line; a byte order mark before the first line is removed."""
        if not self._lines and not self._split_block():
            if self._ended:
                raise StopIteration
            raise NeedMore
        line = self._lines.popleft()
        self._taken += line
        self._taken_lines += 1
        self.number += 1
        if len(self._taken) > MAX_ROW_BYTES:
            self._reject_length(self.row_line)
        if self._taken_lines > MAX_ROW_LINES:
            message = f"A row has over {MAX_ROW_LINES} lines; is a quote not closed?"
            self._chunker.reject("too_many_lines", message, self.row_line)
        return line.removeprefix(BOM) if self.number == 1 else line

    def sample(self, max_bytes: int) -> bytes:
        """Return the next lines without taking them, up to the line that reaches `max_bytes`."""
        while sum(map(len, self._lines)) < max_bytes and self._split_block():
            pass
        lines, size = [], 0
        for line in self._lines:
            lines.append(line)
            size += len(line)
            if size >= max_bytes:
                break
        return b"".join(lines).removeprefix(BOM if self.number == 0 else b"")

    def _reject_length(self, line: int) -> NoReturn:
        message = f"A row is over {MAX_ROW_BYTES} bytes; is a quote not closed?"
        self._chunker.reject("row_too_long", message, line)
