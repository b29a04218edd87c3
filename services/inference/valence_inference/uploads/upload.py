"""One upload of any kind: fed with the parts of a body, it ends as a submission."""

import hashlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from pydantic import ValidationError

from valence_common.problems import FieldError, Unprocessable, UnsupportedMedia, from_pydantic
from valence_common.web.request_body import JSON_TYPE, ContentType
from valence_inference.batches.submission import Submission
from valence_inference.uploads.chunking import Chunker, UploadLimits
from valence_inference.uploads.csv_reader import CsvReader
from valence_inference.uploads.json_reader import JsonReader
from valence_inference.uploads.ndjson_reader import NdjsonReader
from valence_inference.uploads.options import BatchOptions, BatchRequest

CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"

# The kinds of file, with the parameters that each may have besides `charset` (RFC 7111).
FILES: Final = {CSV: ("header",), NDJSON: ()}

CheckUrl = Callable[[str], None]
"""Raises `Unprocessable` for a webhook URL that this installation does not accept."""


class Upload(Protocol):
    """Reads the parts of a body, and rejects it as early as possible."""

    def feed(self, part: bytes) -> None:
        """Read the next part; raise a `DomainError` to reject the body."""
        ...

    def end(self) -> Submission:
        """End the body; raise a `DomainError` to reject it."""
        ...


class JsonUpload:
    """A JSON object with the texts and the options."""

    def __init__(self, limits: UploadLimits, check_url: CheckUrl):
        self._chunker = Chunker(limits, field="body.texts")
        self._reader = JsonReader(self._chunker, max_text_characters=limits.max_text_characters)
        self._check_url = check_url
        self._hash = hashlib.sha256(b"json\n")

    def feed(self, part: bytes) -> None:
        """Read the next part."""
        self._hash.update(part)
        self._reader.feed(part)

    def end(self) -> Submission:
        """End the body; only now are the options known."""
        self._reader.end()
        try:
            fields = BatchRequest.model_validate(self._reader.rest)
        except ValidationError as error:
            raise from_pydantic(error.errors(), within="body") from None
        if fields.webhook_url is not None:
            self._check_url(fields.webhook_url)
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
    """A CSV or NDJSON file; its options are given with it."""

    def __init__(self, kind: str, options: BatchOptions, limits: UploadLimits, check_url: CheckUrl):
        if options.webhook_url is not None:
            check_url(options.webhook_url)
        self._chunker = Chunker(limits, field="body.rows")
        self._options = options
        self._format = "csv" if kind == CSV else "ndjson"
        self._reader: CsvReader | NdjsonReader
        if kind == CSV:
            self._reader = CsvReader(
                self._chunker,
                column=options.column,
                header=options.header == "true",
                delimiter="\t" if options.delimiter == "tab" else options.delimiter,
            )
        else:
            self._reader = NdjsonReader(self._chunker, column=options.column)
        request: list[Any] = [self._format, options.model_dump()]
        self._hash = hashlib.sha256(msgspec.json.encode(request, order="deterministic") + b"\n")

    def feed(self, part: bytes) -> None:
        """Read the next part."""
        self._hash.update(part)
        self._reader.feed(part)

    def end(self) -> Submission:
        """End the file; reject one without rows."""
        self._reader.end()
        if not self._chunker.total:
            raise Unprocessable([FieldError("body.rows", "too_short", "At least one row")])
        self._chunker.close()
        return Submission(
            format=self._format,
            total=self._chunker.total,
            chunks=self._chunker.chunks,
            columns=self._reader.columns,
            text_column=self._reader.text_column,
            priority=self._options.priority,
            webhook_url=self._options.webhook_url,
            fingerprint=self._hash.digest(),
        )


def json_upload(options: BatchOptions, limits: UploadLimits, check_url: CheckUrl) -> JsonUpload:
    """Return an upload of JSON; raise `Unprocessable` for options in the query."""
    _reject_options(options, options.model_fields_set, JSON_TYPE)
    return JsonUpload(limits, check_url)


def file_upload(
    media: ContentType, options: BatchOptions, limits: UploadLimits, check_url: CheckUrl
) -> FileUpload:
    """Return an upload of a CSV or NDJSON file.

    Raises `UnsupportedMedia`, or `Unprocessable` for options that do not apply to the media type or
    a webhook URL that is not accepted.
    """
    media.check(FILES)
    if media.media_type == NDJSON:
        _reject_options(options, {"header", "delimiter"}, NDJSON)
    if "header" in media.parameters:
        options = _with_header(options, media.parameters["header"].lower())
    return FileUpload(media.media_type, options, limits, check_url)


def _with_header(options: BatchOptions, parameter: str) -> BatchOptions:
    if parameter not in {"present", "absent"}:
        raise UnsupportedMedia("The parameter `header` of text/csv must be `present` or `absent`")
    header = "true" if parameter == "present" else "false"
    if "header" in options.model_fields_set and options.header != header:
        message = "Contradicts the media type"
        raise Unprocessable([FieldError("header", "contradiction", message)])
    return options.model_copy(update={"header": header})


def _reject_options(options: BatchOptions, names: set[str], media_type: str) -> None:
    message = f"Not allowed with {media_type}"
    if given := sorted(options.model_fields_set & names):
        raise Unprocessable([FieldError(f"query.{name}", "not_here", message) for name in given])
