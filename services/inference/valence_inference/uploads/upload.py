"""One body on its way in, of whatever kind: fed in parts, it ends as a submission."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
from pydantic import ValidationError

from valence_common.problems import FieldError, Unprocessable, UnsupportedMedia, from_pydantic
from valence_common.web.request_body import JSON_TYPE, ContentType
from valence_inference.schemas.submissions import BatchOptions, BatchRequest
from valence_inference.uploads.chunking import Chunk, Chunker, UploadLimits
from valence_inference.uploads.csv_reader import CsvReader
from valence_inference.uploads.json_reader import JsonReader
from valence_inference.uploads.ndjson_reader import NdjsonReader

CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"

# The kinds of file, and the parameters that each may have beside its charset (RFC 7111).
FILES: Final = {CSV: ("header",), NDJSON: ()}


@dataclass(frozen=True)
class Submission:
    """A batch as it was handed in: read to its end, checked and packed, stored nowhere yet.

    `fingerprint` is the SHA-256 of what was asked for: the kind, the options and the bytes.
    """

    format: str
    total: int
    chunks: list[Chunk]
    columns: list[str] | None
    text_column: int | None
    priority: int
    webhook_url: str | None
    fingerprint: bytes


class Upload(Protocol):
    """What is fed with the parts of a body, and refuses it as soon as it is no good."""

    def feed(self, part: bytes) -> None:
        """Take the next part; raises a `DomainError` for a body that is refused."""
        ...

    def end(self) -> Submission:
        """There are no more parts."""
        ...


class JsonUpload:
    """A JSON object with the texts; its options stand in it."""

    def __init__(self, limits: UploadLimits):
        self._chunker = Chunker(limits, field="body.texts")
        self._texts = JsonReader(self._chunker, max_text_characters=limits.max_text_characters)
        self._hash = hashlib.sha256(b"json\n")

    def feed(self, part: bytes) -> None:
        """Take the next part."""
        self._hash.update(part)
        self._texts.feed(part)

    def end(self) -> Submission:
        """The options are only known now."""
        self._texts.end()
        try:
            fields = BatchRequest.model_validate(self._texts.rest)
        except ValidationError as error:
            raise from_pydantic(error.errors(), within="body") from None
        self._chunker.close()
        return Submission(
            format="json",
            total=self._chunker.total,
            chunks=self._chunker.chunks,
            columns=None,
            text_column=None,
            priority=fields.priority,
            webhook_url=fields.webhook_url,
            fingerprint=self._hash.digest(),
        )


class FileUpload:
    """A CSV or NDJSON file; its options came beside it."""

    def __init__(self, kind: str, options: BatchOptions, limits: UploadLimits):
        self._chunker = Chunker(limits, field="body.rows")
        self._options = options
        self._format = "csv" if kind == CSV else "ndjson"
        self._rows: CsvReader | NdjsonReader
        if kind == CSV:
            self._rows = CsvReader(
                self._chunker,
                column=options.column,
                header=options.header == "true",
                delimiter="\t" if options.delimiter == "tab" else options.delimiter,
            )
        else:
            self._rows = NdjsonReader(self._chunker, column=options.column)
        asked: list[Any] = [self._format, options.model_dump()]
        self._hash = hashlib.sha256(msgspec.json.encode(asked, order="deterministic") + b"\n")

    def feed(self, part: bytes) -> None:
        """Take the next part."""
        self._hash.update(part)
        self._rows.feed(part)

    def end(self) -> Submission:
        """There must have been a row."""
        self._rows.end()
        if not self._chunker.total:
            raise Unprocessable([FieldError("body.rows", "too_short", "At least one row")])
        self._chunker.close()
        return Submission(
            format=self._format,
            total=self._chunker.total,
            chunks=self._chunker.chunks,
            columns=self._rows.columns,
            text_column=self._rows.text_column,
            priority=self._options.priority,
            webhook_url=self._options.webhook_url,
            fingerprint=self._hash.digest(),
        )


def json_upload(options: BatchOptions, limits: UploadLimits) -> JsonUpload:
    """An upload of JSON; raises `Unprocessable` when options came beside it."""
    _reject_options(options, options.model_fields_set, JSON_TYPE)
    return JsonUpload(limits)


def file_upload(media: ContentType, options: BatchOptions, limits: UploadLimits) -> FileUpload:
    """An upload of a CSV or NDJSON file; raises `UnsupportedMedia`, or `Unprocessable` for options
    that do not go with it.
    """
    media.check(FILES)
    if media.media_type == NDJSON:
        _reject_options(options, {"header", "delimiter"}, NDJSON)
    if "header" in media.parameters:
        options = _with_header(options, media.parameters["header"].lower())
    return FileUpload(media.media_type, options, limits)


def _with_header(options: BatchOptions, said: str) -> BatchOptions:
    if said not in {"present", "absent"}:
        raise UnsupportedMedia("The parameter `header` of text/csv is `present` or `absent`")
    header = "true" if said == "present" else "false"
    if "header" in options.model_fields_set and options.header != header:
        message = "Not what the media type says"
        raise Unprocessable([FieldError("header", "contradiction", message)])
    return options.model_copy(update={"header": header})


def _reject_options(options: BatchOptions, names: set[str], kind: str) -> None:
    message = f"Does not go with {kind}"
    if refused := sorted(options.model_fields_set & names):
        raise Unprocessable([FieldError(f"query.{name}", "not_here", message) for name in refused])
