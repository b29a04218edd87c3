"""Lines of a body that comes in parts: whole ones only, counted from 1, decoded one by one."""

from collections import deque
from typing import Final, NoReturn

from valence_inference.uploads.chunking import MAX_ROW_BYTES, Chunker

BLOCK_BYTES: Final = 64 * 1024
MAX_RETRY_BYTES: Final = 256 * 1024
BOM: Final = b"\xef\xbb\xbf"

MAX_ROW_LINES: Final = 10_000
"""As many as the longest text has characters; an unclosed quote ends here if lines are short."""

MIN_MEAN_LINE_BYTES: Final = 16
"""What a line within quotes has on average in the largest body: an empty one costs as much time."""


class NeedMore(Exception):
    """No whole line is left; there may be more once the next part has come."""


class LineReader:
    """An iterator that raises `NeedMore` where it only ends for now.

    Lines that were taken since the last `keep` can be put back: they belong to one row.
    """

    def __init__(self, chunker: Chunker, *, lone_cr: bool):
        """A line ends with LF, or CR LF; with `lone_cr` also with CR. No other character ends one.

        `packer` refuses, in the name of the next row, what is no text in UTF-8.
        """
        self.number = 0
        self._chunker = chunker
        self._lone_cr = lone_cr
        self._waiting: deque[bytes] = deque()
        self._taken = bytearray()
        self._taken_lines = 0
        self._blank_lines = self._quoted_lines = 0
        self._max_blank_lines = chunker.limits.max_batch_texts
        self._max_quoted_lines = max(
            MAX_ROW_LINES, chunker.limits.batch_body_bytes // MIN_MEAN_LINE_BYTES
        )
        self._rest = b""
        self._at = 0
        self._retry_after_bytes = 0
        self._ended = False

    def feed(self, part: bytes) -> None:
        """Take the next part; its lines can be taken once this is `ready`."""
        self._retry_after_bytes -= len(part)
        self._rest = self._rest[self._at :] + part
        self._at = 0

    def _refill(self) -> bool:
        """Split the next whole lines off what waits as it came; whether there were any."""
        size = BLOCK_BYTES
        while self._at < len(self._rest):
            block = self._rest[self._at : self._at + size]
            last = self._at + size >= len(self._rest)
            lines = self._split(block)
            # A CR may be the first half of what ends the line.
            if not lines[-1].endswith(b"\n") and not (last and self._ended):
                block = block[: -len(lines.pop())]
            if lines:
                self._waiting.extend(lines)
                self._at += len(block)
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
        """There are no more parts."""
        self._ended = True

    @property
    def ready(self) -> bool:
        """Whether much came since a row was put back: one that grows is read a few times only."""
        return self._retry_after_bytes <= 0

    @property
    def row_line(self) -> int:
        """The line on which the row begins whose lines are being taken."""
        return self.number - self._taken_lines + 1

    def keep(self) -> None:
        """What was taken made a whole row; raises if rows have too many lines by now."""
        self._quoted_lines += self._taken_lines - 1
        if self._quoted_lines > self._max_quoted_lines:
            message = f"Over {self._max_quoted_lines} lines within quotes in one file"
            self._chunker.reject("too_many_lines", message, self.row_line)
        self._clear()

    def skip(self) -> None:
        """What was taken was a blank line; raises if there are too many."""
        self._blank_lines += 1
        if self._blank_lines > self._max_blank_lines:
            message = f"Over {self._max_blank_lines} blank lines in one file"
            self._chunker.reject("too_many_blank", message, self.row_line)
        self._clear()

    def _clear(self) -> None:
        self._taken.clear()
        self._taken_lines = 0

    def put_back(self) -> None:
        """What was taken made no whole row yet; raises if it is too long to be one.

        So is a line that has not ended. It waits as it came: short lines weigh many times more.
        """
        unfinished = len(self._taken) + len(self._rest) - self._at
        self._retry_after_bytes = min(unfinished, MAX_RETRY_BYTES)
        begins = self.row_line if self._taken else self.number + len(self._waiting) + 1
        self.number -= self._taken_lines
        if self._taken:  # all that waited
            self._rest, self._at = bytes(self._taken) + self._rest[self._at :], 0
        self._clear()
        if unfinished > MAX_ROW_BYTES:
            self._reject_length(begins)

    def __iter__(self) -> "LineReader":
        return self

    def __next__(self) -> str:
        """The next line as text, with what ends it."""
        try:
            text = self.take().decode("utf-8")
        except UnicodeDecodeError:
            self._chunker.reject("utf_8", "Not UTF-8", self.number)
        if "\0" in text:
            self._chunker.reject("plain_text", "Text may not hold NUL", self.number)
        return text

    def take(self) -> bytes:
        """The next line as it came, but for a byte order mark in front of the first."""
        if not self._waiting and not self._refill():
            if self._ended:
                raise StopIteration
            raise NeedMore
        line = self._waiting.popleft()
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
        """The first lines that nobody has taken, up to about `most` bytes; nothing is taken."""
        while sum(map(len, self._waiting)) < max_bytes and self._refill():
            pass
        lines, size = [], 0
        for line in self._waiting:
            lines.append(line)
            size += len(line)
            if size >= max_bytes:
                break
        return b"".join(lines).removeprefix(BOM if self.number == 0 else b"")

    def _reject_length(self, line: int) -> NoReturn:
        message = f"A row is over {MAX_ROW_BYTES} bytes; is a quote not closed?"
        self._chunker.reject("row_too_long", message, line)
