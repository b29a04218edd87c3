"""Incremental reading of NDJSON files: each line is a text, or an object that contains one."""

from typing import Any, Final

import msgspec

from valence_common.problems import Invalid, Unprocessable
from valence_common.web.strict_json import loads
from valence_inference.uploads.chunking import Chunker
from valence_inference.uploads.csv_reader import MAX_COLUMNS, MAX_NAME_CHARACTERS, TEXT_COLUMN
from valence_inference.uploads.line_reader import LineReader, NeedMore

_BLANK: Final = b" \t\r\n"

_encode = msgspec.json.Encoder().encode


class NdjsonReader:
    """Passes the lines of an NDJSON file to a chunker: the text, and an object of the rest."""

    def __init__(self, chunker: Chunker, *, column: str | None):
        """`column` is the name of the text field."""
        self._indexes: dict[str, int] = {}
        self._chunker = chunker
        self._column = TEXT_COLUMN if column is None else column
        self._lines = LineReader(chunker, lone_cr=False)

    @property
    def columns(self) -> list[str] | None:
        """The names of all fields, in the order of their first use; None if there are none."""
        return list(self._indexes) or None

    @property
    def text_column(self) -> int | None:
        """The index of the text field in `columns`."""
        return self._indexes.get(self._column)

    def feed(self, part: bytes) -> None:
        """Read the next part; raise `Unprocessable` for the first invalid line in it."""
        self._lines.feed(part)
        if self._lines.ready:
            self._read()

    def end(self) -> None:
        """End the file: what remains is the last line."""
        self._lines.end()
        self._read()

    def _read(self) -> None:
        while True:
            try:
                line = self._lines.take()
            except NeedMore:
                self._lines.put_back()
                return
            except StopIteration:
                return
            if not line.strip(_BLANK):
                self._lines.skip()
                continue
            self._lines.keep()
            self._add(self._parse(line))

    def _parse(self, line: bytes) -> Any:
        try:
            return loads(line)
        except Unprocessable as error:
            first = error.errors[0]
            self._chunker.reject(first.rule, first.message, self._lines.number)
        except Invalid:
            message = "Not a JSON value in UTF-8, or nested too deeply"
            self._chunker.reject("json", message, self._lines.number)

    def _add(self, value: Any) -> None:
        line = self._lines.number
        if isinstance(value, str):
            self._chunker.add(value, line=line)
            return
        if not isinstance(value, dict):
            self._chunker.reject("row_type", "Neither a string nor an object", line)
        if self._column not in value:
            self._chunker.reject("missing", "The object has no text", line)
        for name in value:
            if name not in self._indexes:
                self._add_name(name, line)
        text = value.pop(self._column)
        self._chunker.add(text, _encode(value) if value else None, line=line)

    def _add_name(self, name: str, line: int) -> None:
        if len(self._indexes) >= MAX_COLUMNS:
            self._chunker.reject("too_long", f"At most {MAX_COLUMNS} different fields", line)
        if len(name) > MAX_NAME_CHARACTERS:
            message = f"Field names have at most {MAX_NAME_CHARACTERS} characters"
            self._chunker.reject("string_too_long", message, line)
        self._indexes[name] = len(self._indexes)
