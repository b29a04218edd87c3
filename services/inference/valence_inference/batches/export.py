"""The results of a batch as JSON, NDJSON or CSV, with the columns of the uploaded file."""

import csv
import io
import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from sqlalchemy.orm import Session

from valence_common.db import Database
from valence_common.models import TERMINAL, Batch
from valence_common.postgres import repeatable_read
from valence_common.problems import Conflict, PreconditionFailed
from valence_inference.batches import results, status
from valence_inference.batches.results import ResultRow

Format = Literal["json", "ndjson", "csv"]
ANSWER_COLUMNS = ("sentiment", "confidence", "low_confidence", "model", "error")
CLASH_PREFIX = "valence_"

PAGE_ROWS = 2_000
RETRY_SECONDS = (1, 60)


class NotEnded(Conflict):
    """The batch has not ended, so its results can still change."""

    detail = "The results are available once the batch has ended"

    def __init__(self, eta_seconds: int | None):
        shortest, longest = RETRY_SECONDS
        retry_after = min(max(eta_seconds or 0, shortest), longest)
        super().__init__(headers={"Retry-After": str(retry_after)})


class ChangedMeanwhile(Conflict):
    """The batch was retried or deleted while its results were being sent."""

    detail = "The batch was changed during the download"


class VersionMismatch(PreconditionFailed):
    """The batch was retried since: earlier results and the rest would come from different runs."""

    detail = "The batch was retried; download again from the start"


class NotResumable(Conflict):
    """A cancelled batch has gaps, and this CSV has no index column to resume from."""

    detail = "CSV of a cancelled batch cannot be resumed; use ndjson"


class Columns(NamedTuple):
    """The columns of an uploaded file in order; `text_index` is the position of the text."""

    names: list[str]
    text_index: int

    @classmethod
    def from_batch(cls, batch: Batch) -> "Columns | None":
        """Return the columns of a batch, or None if it was a list of texts."""
        if batch.columns is None or batch.text_column is None:
            return None
        return cls(batch.columns, batch.text_column)

    def cells(self, row: ResultRow) -> list[Any]:
        """Return the original row, one value per column; missing or unstored values are None."""
        if isinstance(row.cells, dict):
            others = [row.cells.get(name) for name in self._others]
        else:
            others = [*(row.cells or ())]
            others += [None] * (len(self.names) - 1 - len(others))
        return [*others[: self.text_index], row.text, *others[self.text_index :]]

    def as_object(self, row: ResultRow) -> dict[str, Any] | None:
        """Return the original row as an object with the fields it had; None if it is not stored."""
        if row.text is None:
            return None
        if isinstance(row.cells, list):
            return dict(zip(self.names, self.cells(row), strict=True))
        # An NDJSON line: an object, or just the text.
        fields = {**(row.cells or {}), self.names[self.text_index]: row.text}
        order = dict.fromkeys([*self.names, *fields])
        return {name: fields[name] for name in order if name in fields}

    @property
    def _others(self) -> list[str]:
        return [*self.names[: self.text_index], *self.names[self.text_index + 1 :]]


class Writer(Protocol):
    """Writes results in one format."""

    def head(self) -> bytes:
        """Return what comes before the first row."""
        ...

    def rows(self, rows: Sequence[ResultRow]) -> bytes:
        """Return the rows in this format."""
        ...


def items(rows: Sequence[ResultRow], columns: Columns | None) -> list[dict[str, Any]]:
    """Return the rows as JSON objects, with the original row as `row` where it is known."""
    objects = []
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
        objects.append(item)
    return objects


class NdjsonWriter:
    """One JSON object per line."""

    def __init__(self, columns: Columns | None):
        self._columns = columns
        self._encoder = msgspec.json.Encoder()

    def head(self) -> bytes:
        """Return nothing."""
        return b""

    def rows(self, rows: Sequence[ResultRow]) -> bytes:
        """Return the rows, each ending in a line feed."""
        return self._encoder.encode_lines(items(rows, self._columns))


class CsvWriter:
    """RFC 4180: the original columns in order, then those of the answer.

    Cells are data and are not changed, even if a spreadsheet would take them for a formula.
    """

    def __init__(self, columns: Columns | None):
        self._columns = columns

    def head(self) -> bytes:
        """Return the header; an answer column whose name the file uses gets a prefix."""
        names = ["index", "text"] if self._columns is None else [*self._columns.names]
        for name in ANSWER_COLUMNS:
            while name in names:
                name = f"{CLASH_PREFIX}{name}"  # noqa: PLW2901 - until it is unique
            names.append(name)
        return self._lines([names])

    def rows(self, rows: Sequence[ResultRow]) -> bytes:
        """Return the rows in this format."""
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
    """Return a string as it is, another value as JSON, and None as an empty cell."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


ANY_VERSION = "*"
"""`If-Match: *` accepts every version."""


def read_page(
    session: Session,
    user_id: uuid.UUID,
    task_id: uuid.UUID,
    *,
    start: int,
    limit: int,
    versions: Collection[str] | None = None,
) -> tuple[list[dict[str, Any]], int | None, str]:
    """Return up to `limit` results as JSON objects from index `start` on, the index at which the
    next page starts, and the version of the results.

    Returns fewer if the rows are heavy. Raises `VersionMismatch` unless the version is one of
    `versions`, if those are given.
    """
    repeatable_read(session)
    batch = _find_ended(session, user_id, task_id)
    version = _check_version(batch, "json", versions)
    page = results.read_page(session, batch.id, start=start, limit=limit)
    return items(page.rows, Columns.from_batch(batch)), page.next_start, version


class ResultStream:
    """All results of a batch from an index on, written page by page, each in its own transaction.

    The stream breaks off if the batch is retried or deleted meanwhile.
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
        """If `versions` are given, the results must be of one of them."""
        self._database = database
        self._user_id, self._task_id = user_id, task_id
        self._format, self._start = format_, start
        self._versions = versions
        self.version = ""

    async def open(self) -> AsyncIterator[bytes]:
        """Read the first page, set `version`, and return an iterator over the document.

        Raises `TaskNotFound`, `NotEnded`, `NotResumable` or `VersionMismatch`. Iterating raises the
        error that breaks the stream off. Streams of the same `version` can be concatenated.
        """
        return self._pieces(*await self._database.run(self._first, self._start))

    async def _pieces(self, piece: bytes, next_start: int | None) -> AsyncIterator[bytes]:
        yield piece
        while next_start is not None:
            piece, next_start = await self._database.run(self._next, next_start)
            yield piece

    def _first(self, session: Session, start: int) -> tuple[bytes, int | None]:
        repeatable_read(session)
        batch = _find_ended(session, self._user_id, self._task_id)
        columns = Columns.from_batch(batch)
        if start and self._format == "csv" and columns is not None and batch.status == "cancelled":
            raise NotResumable
        self.version = _check_version(batch, self._format, self._versions)
        head = self._writer(columns).head() if start == 0 else b""
        piece, next_start = self._read(session, batch, start)
        return head + piece, next_start

    def _next(self, session: Session, start: int) -> tuple[bytes, int | None]:
        repeatable_read(session)
        batch = _find_ended(session, self._user_id, self._task_id)
        if _version(batch, self._format) != self.version:
            raise ChangedMeanwhile
        return self._read(session, batch, start)

    def _read(self, session: Session, batch: Batch, start: int) -> tuple[bytes, int | None]:
        page = results.read_page(session, batch.id, start=start, limit=PAGE_ROWS)
        return self._writer(Columns.from_batch(batch)).rows(page.rows), page.next_start

    def _writer(self, columns: Columns | None) -> Writer:
        return CsvWriter(columns) if self._format == "csv" else NdjsonWriter(columns)


def _find_ended(session: Session, user_id: uuid.UUID, task_id: uuid.UUID) -> Batch:
    batch = status.find(session, user_id, task_id)
    if batch.status not in TERMINAL:
        raise NotEnded(status.compute_status(session, batch, max_inline=0).eta_seconds)
    return batch


def _version(batch: Batch, format_: Format) -> str:
    """Return the version of an ended batch's results; a retry changes it."""
    ended_at = batch.finished_at or batch.created_at  # never the latter: for the type checker
    return f"{batch.id}.{ended_at.timestamp():.6f}.{format_}"


def _check_version(batch: Batch, format_: Format, versions: Collection[str] | None) -> str:
    version = _version(batch, format_)
    if versions is not None and not {version, ANY_VERSION}.intersection(versions):
        raise VersionMismatch
    return version
