"""Exports: a batch's results as JSON, NDJSON and CSV, with the columns of the file it came from."""

import csv
import io
import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from sqlalchemy.orm import Session

from valence_common.db import Database
from valence_common.models import TERMINAL, Batch
from valence_common.problems import Conflict, PreconditionFailed
from valence_inference.batches import results, status
from valence_inference.batches.results import ResultRow
from valence_inference.reading import repeatable_read

Format = Literal["json", "ndjson", "csv"]
ANSWER_COLUMNS = ("sentiment", "confidence", "low_confidence", "model", "error")
CLASH_PREFIX = "valence_"

PAGE_ROWS = 2_000
RETRY_SECONDS = (1, 60)


class NotEnded(Conflict):
    """The batch is still worked on: it has no results that stay as they are."""

    detail = "The results come when the batch has ended"

    def __init__(self, eta_seconds: int | None):
        least, most = RETRY_SECONDS
        soon = min(max(eta_seconds or 0, least), most)
        super().__init__(headers={"Retry-After": str(soon)})


class ChangedMeanwhile(Conflict):
    """What was being read is not there any more as it was."""

    detail = "The batch was changed meanwhile"


class VersionMismatch(PreconditionFailed):
    """The batch was tried again since: what was read before and what would come are of two runs."""

    detail = "The batch has ended anew since; read its results from the beginning"


class NotResumable(Conflict):
    """Of a batch with gaps, records that tell no index do not say how far they go."""

    detail = "Of a cancelled batch this CSV tells no index to go on from; ndjson does"


class Columns(NamedTuple):
    """The columns of the file in their order; the text is the one at `text`."""

    names: list[str]
    text_index: int

    @classmethod
    def from_batch(cls, batch: Batch) -> "Columns | None":
        """A batch's columns; None for one that was a list of texts."""
        if batch.columns is None or batch.text_column is None:
            return None
        return cls(batch.columns, batch.text_column)

    def cells(self, row: ResultRow) -> list[Any]:
        """A row as it was, one value a column; what it did not have, or is not stored, is None."""
        if isinstance(row.cells, dict):
            others = [row.cells.get(name) for name in self._others]
        else:
            others = [*(row.cells or ())]
            others += [None] * (len(self.names) - 1 - len(others))
        return [*others[: self.text_index], row.text, *others[self.text_index :]]

    def as_object(self, row: ResultRow) -> dict[str, Any] | None:
        """A row as an object with the fields that it had; None where it is not stored."""
        if row.text is None:
            return None
        if isinstance(row.cells, list):
            return dict(zip(self.names, self.cells(row), strict=True))
        # An object's fields, or none but the text.
        fields = {**(row.cells or {}), self.names[self.text_index]: row.text}
        order = dict.fromkeys([*self.names, *fields])
        return {name: fields[name] for name in order if name in fields}

    @property
    def _others(self) -> list[str]:
        return [*self.names[: self.text_index], *self.names[self.text_index + 1 :]]


class Writer(Protocol):
    """Writes results in one format."""

    def head(self) -> bytes:
        """What comes before the first row."""
        ...

    def rows(self, rows: Sequence[ResultRow]) -> bytes:
        """These rows."""
        ...


def items(rows: Sequence[ResultRow], columns: Columns | None) -> list[dict[str, Any]]:
    """The rows as objects, for JSON; `row` is there where the original one is known."""
    found = []
    for row in rows:
        item: dict[str, Any] = {
            "index": row.index,
            "text": row.text,
            "sentiment": row.sentiment,
            "confidence": row.confidence,
            "low_confidence": row.low_confidence,
            "model": row.model,
            "error": row.error,
        }
        if columns is not None and (original := columns.as_object(row)) is not None:
            item["row"] = original
        found.append(item)
    return found


class NdjsonWriter:
    """One JSON object a line."""

    def __init__(self, columns: Columns | None):
        self._columns = columns
        self._encoder = msgspec.json.Encoder()

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def rows(self, rows: Sequence[ResultRow]) -> bytes:
        """These rows, each with its line's end."""
        return self._encoder.encode_lines(items(rows, self._columns))


class CsvWriter:
    """RFC 4180: the original columns in their order, then the answer's.

    Cells are data and stay as they are, also those that a spreadsheet would take for a formula.
    """

    def __init__(self, columns: Columns | None):
        self._columns = columns

    def head(self) -> bytes:
        """The line of names; a name that the file has as well gets a prefix."""
        names = ["index", "text"] if self._columns is None else [*self._columns.names]
        for name in ANSWER_COLUMNS:
            while name in names:
                name = f"{CLASH_PREFIX}{name}"  # noqa: PLW2901 - until it is free
            names.append(name)
        return self._lines([names])

    def rows(self, rows: Sequence[ResultRow]) -> bytes:
        """These rows."""
        return self._lines(
            [
                *([row.index, row.text] if self._columns is None else self._columns.cells(row)),
                row.sentiment,
                row.confidence,
                row.low_confidence,
                row.model,
                row.error,
            ]
            for row in rows
        )

    def _lines(self, lines: Iterable[Sequence[Any]]) -> bytes:
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\r\n").writerows([_cell(v) for v in line] for line in lines)
        return out.getvalue().encode()


def _cell(value: Any) -> str:
    """What is no text is written as in JSON; what is not there is empty."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


ANY_VERSION = "*"
"""The version that every one is."""


def read_page(
    session: Session,
    user_id: uuid.UUID,
    task_id: uuid.UUID,
    *,
    start: int,
    limit: int,
    versions: Collection[str] | None = None,
) -> tuple[list[dict[str, Any]], int | None, str]:
    """Up to `limit` results from place `start` on, for JSON, where the next page begins, and the
    version that all of them are of; raises `Outdated` unless that is `known`.

    Fewer where rows are heavy.
    """
    repeatable_read(session)
    batch = _ended(session, user_id, task_id)
    version = _version(batch, "json", versions)
    found = results.read_page(session, batch.id, start=start, limit=limit)
    return items(found.rows, Columns.from_batch(batch)), found.next_start, version


class ResultStream:
    """All results of a batch from a place on, written page by page, a transaction each.

    The batch must stay as it is: who retries or deletes it meanwhile breaks the stream off.
    """

    def __init__(
        self,
        database: Database,
        user_id: uuid.UUID,
        task_id: uuid.UUID,
        format_: Format,
        start: int,
        versions: Collection[str] | None = None,
    ):
        """It must be of a version that is `known`, if any are named."""
        self._database = database
        self._user_id, self._task_id = user_id, task_id
        self._form, self._start = format_, start
        self._known = versions
        self.version = ""

    async def open(self) -> AsyncIterator[bytes]:
        """The pieces; raises what keeps them from being begun, iterating what breaks them off.

        From now on `version` is known: what another stream of it says goes before or after this.
        """
        return self._pieces(*await self._database.run(self._first, self._start))

    async def _pieces(self, piece: bytes, following: int | None) -> AsyncIterator[bytes]:
        yield piece
        while following is not None:
            piece, following = await self._database.run(self._next, following)
            yield piece

    def _first(self, session: Session, start: int) -> tuple[bytes, int | None]:
        repeatable_read(session)
        batch = _ended(session, self._user_id, self._task_id)
        columns = Columns.from_batch(batch)
        if start and self._form == "csv" and columns is not None and batch.status == "cancelled":
            raise NotResumable
        self.version = _version(batch, self._form, self._known)
        head = self._writer(columns).head() if start == 0 else b""
        piece, following = self._read(session, batch, start)
        return head + piece, following

    def _next(self, session: Session, start: int) -> tuple[bytes, int | None]:
        repeatable_read(session)
        batch = _ended(session, self._user_id, self._task_id)
        if _version(batch, self._form) != self.version:
            raise ChangedMeanwhile
        return self._read(session, batch, start)

    def _read(self, session: Session, batch: Batch, start: int) -> tuple[bytes, int | None]:
        found = results.read_page(session, batch.id, start=start, limit=PAGE_ROWS)
        return self._writer(Columns.from_batch(batch)).rows(found.rows), found.next_start

    def _writer(self, columns: Columns | None) -> Writer:
        return CsvWriter(columns) if self._form == "csv" else NdjsonWriter(columns)


def _ended(session: Session, user_id: uuid.UUID, task_id: uuid.UUID) -> Batch:
    batch = status.find(session, user_id, task_id)
    if batch.status not in TERMINAL:
        raise NotEnded(status.compute_status(session, batch, max_inline=0).eta_seconds)
    return batch


def _version(batch: Batch, form: Format, known: Collection[str] | None = None) -> str:
    """What the results of a batch that has ended are called until it is tried again."""
    ended_at = batch.finished_at or batch.created_at  # the first, but the type does not say so
    version = f"{batch.id}.{ended_at.timestamp():.6f}.{form}"
    if known is not None and not {version, ANY_VERSION}.intersection(known):
        raise VersionMismatch
    return version
