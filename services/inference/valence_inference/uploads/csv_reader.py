"""Incremental reading of CSV files: the csv module parses the rows of each part."""

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
"""The default column of the texts."""

# The csv module's own limit, for the whole process; `LineReader` rejects such rows earlier.
csv.field_size_limit(MAX_ROW_BYTES)

_encode = msgspec.json.Encoder().encode


class CsvReader:
    """Passes the rows of a CSV file to a chunker: the text, and a list of the other cells.

    Quotes must be closed and followed by a delimiter or the end of the row, and all rows have as
    many cells as the first. Blank lines are skipped.
    """

    def __init__(
        self, chunker: Chunker, *, column: str | None, header: bool, delimiter: str | None
    ):
        """`column` is the name of the text column, or its number, counted from 1."""
        self.columns: list[str] | None = None
        self.text_column: int | None = None
        self._chunker = chunker
        self._column = column
        self._header = header
        self._lines = LineReader(chunker, lone_cr=True)
        self._delimiter = delimiter

    def feed(self, part: bytes) -> None:
        """Read the next part; raise `Unprocessable` for the first invalid row in it."""
        self._lines.feed(part)
        if self._lines.ready:
            self._read(ended=False)

    def end(self) -> None:
        """End the file: what remains is the last row."""
        self._lines.end()
        self._read(ended=True)

    def _read(self, *, ended: bool) -> None:
        if self._delimiter is None:
            sample = self._lines.sample(SAMPLE_BYTES)
            if not ended and len(sample) < SAMPLE_BYTES:
                self._lines.put_back()
                return
            self._delimiter = sniff(sample, whole=len(sample) < SAMPLE_BYTES)
        # A new reader for each part: a reader keeps a buffer as large as the longest cell, with
        # four bytes per character.
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
            self._add(cells, line)

    def _add(self, cells: list[str], line: int) -> None:
        if self.columns is None or self.text_column is None:
            names = cells if self._header else [str(n + 1) for n in range(len(cells))]
            self.text_column = self._find_text_column(names, line)
            self.columns = names
            if self._header:
                return
        if len(cells) != len(self.columns):
            message = f"{len(cells)} cells, but the file has {len(self.columns)} columns"
            self._chunker.reject("ragged", message, line)
        text = cells.pop(self.text_column)
        self._chunker.add(text, _encode(cells) if cells else None, line=line)

    def _find_text_column(self, names: list[str], line: int) -> int:
        """Return the index of the text column; raise `Unprocessable` for invalid names."""
        if len(names) > MAX_COLUMNS:
            _reject("body.columns", "too_long", f"Line {line}: At most {MAX_COLUMNS} columns")
        if any(len(name) > MAX_NAME_CHARACTERS for name in names):
            message = f"Line {line}: Column names have at most {MAX_NAME_CHARACTERS} characters"
            _reject("body.columns", "string_too_long", message)
        if len(set(names)) != len(names):
            message = f"Line {line}: Two columns have the same name"
            _reject("body.columns", "unique_columns", message)
        column = TEXT_COLUMN if self._column is None else self._column
        if column in names:
            return names.index(column)
        if self._column is None and len(names) == 1:
            return 0
        if self._column is None:
            message = "Set `column` to the name of the text column, or its number, counted from 1"
            _reject("column", "missing", message)
        if not (column.isdecimal() and 1 <= int(column) <= len(names)):
            _reject("column", "unknown_column", "There is no column with that name or number")
        return int(column) - 1

    def _reject_quotes(self, error: csv.Error) -> NoReturn:
        # The message of a csv.Error can quote the file.
        closed = "unexpected end" not in str(error)
        message = "A closing quote is followed by text" if closed else "A quote is not closed"
        self._chunker.reject("csv", message, self._lines.row_line)


def _reject(field: str, rule: str, message: str) -> NoReturn:
    raise Unprocessable([FieldError(field, rule, message)])
