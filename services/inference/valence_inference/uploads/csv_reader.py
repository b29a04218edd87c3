"""CSV as it comes: rows by the csv module, columns by the header or their numbers."""

import csv
from typing import Final, NoReturn

import msgspec

from valence_common.problems import FieldError, Unprocessable
from valence_inference.uploads.chunking import MAX_ROW_BYTES, Chunker
from valence_inference.uploads.csv_dialect import SAMPLE_BYTES, sniff
from valence_inference.uploads.line_reader import LineReader, NeedMore

MAX_COLUMNS: Final = 200
MAX_NAME_CHARACTERS: Final = 200

TEXT_COLUMN: Final = "text"
"""The column that is scored when none is named."""

# The library's own limit, of the process: rows end sooner, at the same length.
csv.field_size_limit(MAX_ROW_BYTES)

_encode = msgspec.json.Encoder().encode


class CsvReader:
    """The rows of a CSV file, which go to a packer: the text, and a list of the other cells.

    Quotes must be closed, and nothing but a delimiter or the end of the row may follow; each row
    has as many cells as the first. Blank lines do not count.
    """

    def __init__(
        self, chunker: Chunker, *, column: str | None, header: bool, delimiter: str | None
    ):
        """`column` is the name or the number, from 1, of the one with the texts."""
        self.columns: list[str] | None = None
        self.text_column: int | None = None
        self._chunker = chunker
        self._column = column
        self._header = header
        self._lines = LineReader(chunker, lone_cr=True)
        self._delimiter = delimiter

    def feed(self, part: bytes) -> None:
        """Take the next part; raises `Unprocessable` for its first row that is no good."""
        self._lines.feed(part)
        if self._lines.ready:
            self._read(ended=False)

    def end(self) -> None:
        """There are no more parts: what is left is a row."""
        self._lines.end()
        self._read(ended=True)

    def _read(self, *, ended: bool) -> None:
        if self._delimiter is None:
            sample = self._lines.sample(SAMPLE_BYTES)
            if not ended and len(sample) < SAMPLE_BYTES:
                self._lines.put_back()
                return
            self._delimiter = sniff(sample, whole=len(sample) < SAMPLE_BYTES)
        # Anew for each part: it would go on to hold the longest cell, in four bytes a character.
        reader = csv.reader(self._lines, delimiter=self._delimiter, strict=True)
        while True:
            try:
                cells = next(reader)
            except NeedMore:
                self._lines.put_back()
                return
            except StopIteration:
                return
            except csv.Error as error:
                self._reject_quotes(error)
            if not cells:
                self._lines.skip()
                continue
            line = self._lines.row_line
            self._lines.keep()
            self._take(cells, line)

    def _take(self, cells: list[str], line: int) -> None:
        if self.columns is None or self.text_column is None:
            names = cells if self._header else [str(n + 1) for n in range(len(cells))]
            self.text_column = self._find_text_column(names, line)
            self.columns = names
            if self._header:
                return
        if len(cells) != len(self.columns):
            message = f"{len(cells)} cells in a table of {len(self.columns)} columns"
            self._chunker.reject("ragged", message, line)
        text = cells.pop(self.text_column)
        self._chunker.add(text, _encode(cells) if cells else None, line=line)

    def _find_text_column(self, names: list[str], line: int) -> int:
        """The place of the column with the texts."""
        if len(names) > MAX_COLUMNS:
            _reject("body.columns", "too_long", f"Line {line}: At most {MAX_COLUMNS} columns")
        if any(len(name) > MAX_NAME_CHARACTERS for name in names):
            message = f"Line {line}: Names of at most {MAX_NAME_CHARACTERS} characters"
            _reject("body.columns", "string_too_long", message)
        if len(set(names)) != len(names):
            _reject("body.columns", "unique_columns", f"Line {line}: Two columns have one name")
        wanted = TEXT_COLUMN if self._column is None else self._column
        if wanted in names:
            return names.index(wanted)
        if self._column is None and len(names) == 1:
            return 0
        if self._column is None:
            message = "Name the column of the texts: `column`, by its name or its number from 1"
            _reject("column", "missing", message)
        if not (wanted.isdecimal() and 1 <= int(wanted) <= len(names)):
            _reject("column", "unknown_column", "No column has that name or number")
        return int(wanted) - 1

    def _reject_quotes(self, error: csv.Error) -> NoReturn:
        # What the library says can quote the file.
        closed = "unexpected end" not in str(error)
        message = "Something follows a closing quote" if closed else "A quote is not closed"
        self._chunker.reject("csv", message, self._lines.row_line)


def _reject(field: str, rule: str, message: str) -> NoReturn:
    raise Unprocessable([FieldError(field, rule, message)])
