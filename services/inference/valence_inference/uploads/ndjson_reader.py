"""NDJSON as it comes: a line is one text, or an object that has one among its fields."""

from typing import Any, Final

import msgspec

from valence_common.problems import Invalid, Unprocessable
from valence_common.web.strict_json import loads
from valence_inference.uploads.chunking import Packer
from valence_inference.uploads.csv_reader import MOST_COLUMNS, MOST_NAME_CHARACTERS, TEXT_COLUMN
from valence_inference.uploads.line_reader import Lines, NeedMore

_BLANK: Final = b" \t\r\n"

_encode = msgspec.json.Encoder().encode


class Records:
    """The lines of an NDJSON file, which go to a packer: the text, and an object of the rest."""

    def __init__(self, packer: Packer, *, column: str | None):
        """`column` names the field with the texts."""
        self._names: dict[str, int] = {}
        self._packer = packer
        self._column = TEXT_COLUMN if column is None else column
        self._lines = Lines(packer, lone_cr=False)

    @property
    def columns(self) -> list[str] | None:
        """The names of all fields, in the order in which they came; None if there were none."""
        return list(self._names) or None

    @property
    def text_column(self) -> int | None:
        """The place among them of the one with the texts."""
        return self._names.get(self._column)

    def feed(self, part: bytes) -> None:
        """Take the next part; raises `Unprocessable` for its first line that is no good."""
        self._lines.feed(part)
        if self._lines.ready:
            self._read()

    def end(self) -> None:
        """There are no more parts: what is left is a line."""
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
            self._take(self._value(line))

    def _value(self, line: bytes) -> Any:
        try:
            return loads(line)
        except Unprocessable as refusal:
            error = refusal.errors[0]
            self._packer.refuse(error.rule, error.message, self._lines.number)
        except Invalid:
            message = "Not one JSON value in UTF-8, or one that is nested too deep"
            self._packer.refuse("json", message, self._lines.number)

    def _take(self, value: Any) -> None:
        line = self._lines.number
        if isinstance(value, str):
            self._packer.add(value, line=line)
            return
        if not isinstance(value, dict):
            self._packer.refuse("row_type", "Neither a string nor an object", line)
        if self._column not in value:
            self._packer.refuse("missing", "The object has no text", line)
        for name in value:
            if name not in self._names:
                self._name(name, line)
        text = value.pop(self._column)
        self._packer.add(text, _encode(value) if value else None, line=line)

    def _name(self, name: str, line: int) -> None:
        if len(self._names) >= MOST_COLUMNS:
            self._packer.refuse("too_long", f"At most {MOST_COLUMNS} different fields", line)
        if len(name) > MOST_NAME_CHARACTERS:
            message = f"Names of at most {MOST_NAME_CHARACTERS} characters"
            self._packer.refuse("string_too_long", message, line)
        self._names[name] = len(self._names)
