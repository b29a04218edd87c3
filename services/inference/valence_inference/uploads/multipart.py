"""A multipart form with a file; its other parts are the options of the batch and come first."""

import logging
from typing import Any, Final, NoReturn

from pydantic import ValidationError
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from valence_common.problems import (
    FieldError,
    Invalid,
    Unprocessable,
    UnsupportedMedia,
    from_pydantic,
)
from valence_common.web.request_body import ContentType
from valence_inference.batches.submission import Submission
from valence_inference.uploads.chunking import UploadLimits
from valence_inference.uploads.options import BatchOptions
from valence_inference.uploads.upload import CSV, FILES, NDJSON, CheckUrl, FileUpload, file_upload

FILE_PART: Final = b"file"
REPEATED: Final = "twice"
"""The rule that a repeated option breaks."""

MAX_HEADERS: Final = 8
MAX_HEADER_BYTES: Final = 1024
MAX_OPTION_BYTES: Final = 4 * 1024

_KIND_OF_SUFFIX: Final = {b".csv": CSV, b".ndjson": NDJSON, b".jsonl": NDJSON}

# The library's log messages quote what it cannot parse.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class MultipartUpload:
    """A multipart/form-data body (RFC 7578) with one part `file`, which is the last."""

    def __init__(
        self, boundary: str, options: BatchOptions, limits: UploadLimits, check_url: CheckUrl
    ):
        """`options` are those of the query; each option may be given once, there or in the form."""
        self._given = options.model_dump(include=options.model_fields_set)
        self._limits, self._check_url = limits, check_url
        self._file: FileUpload | None = None
        self._option: bytes | None = None  # the name of the current part
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._content = bytearray()
        self._ended = False
        callbacks: Any = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(
                boundary.encode("latin-1"),
                callbacks,
                max_header_count=MAX_HEADERS,
                max_header_size=MAX_HEADER_BYTES,
            )
        except FormParserError:
            raise UnsupportedMedia("The boundary of the form is too long") from None

    def feed(self, part: bytes) -> None:
        """Read the next part of the body."""
        try:
            self._parser.write(part)
        except FormParserError:
            raise Invalid("The form is not valid multipart/form-data") from None
        if self._file is not None and self._content:
            self._file.feed(bytes(self._content))
            self._content.clear()

    def end(self) -> Submission:
        """End the body; reject a form that is incomplete or has no file."""
        if not self._ended:
            raise Invalid("The form is incomplete")
        if self._file is None:
            raise Unprocessable([FieldError("body.file", "missing", "Field required")])
        return self._file.end()

    def _on_part_begin(self) -> None:
        if self._file is not None:
            _reject("body", "part_after_file", "The file must be the last part")
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        name = bytes(self._name).lower()
        if name in self._headers:
            raise Invalid("A part of the form repeats a header")
        self._headers[name] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        disposition, names = parse_options_header(self._headers.get(b"content-disposition"))
        name = names.get(b"name")
        if disposition != b"form-data" or name is None:
            raise Invalid("A part of the form has no name")
        if name == FILE_PART:
            self._open_file(names.get(b"filename", b""))
        elif name.decode("latin-1") in BatchOptions.model_fields:
            self._option = name
        else:
            _reject("body", "extra_forbidden", "Unknown part")

    def _open_file(self, file_name: bytes) -> None:
        encoding = self._headers.get(b"content-transfer-encoding", b"binary")
        if encoding.strip().lower() not in {b"binary", b"8bit", b"7bit"}:
            raise UnsupportedMedia("The file must not have a Content-Transfer-Encoding")
        media = ContentType.parse(self._headers.get(b"content-type", b"").decode("latin-1"))
        if media is None or media.media_type not in FILES:
            # Browsers send a generic type for files they do not know: use the file name.
            name = file_name.lower()
            kinds = [kind for suffix, kind in _KIND_OF_SUFFIX.items() if name.endswith(suffix)]
            media = ContentType(kinds[0] if kinds else "", {})
        try:
            options = BatchOptions.model_validate(self._given)
        except ValidationError as error:
            raise from_pydantic(error.errors(), within="body") from None
        self._file = file_upload(media, options, self._limits, self._check_url)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._content += data[start:end]
            return
        self._value += data[start:end]
        if len(self._value) > MAX_OPTION_BYTES:
            _reject("body", "too_long", f"An option may take at most {MAX_OPTION_BYTES} bytes")

    def _on_part_end(self) -> None:
        if self._option is None:
            return
        name = self._option.decode("latin-1")
        try:
            value = self._value.decode("utf-8")
        except UnicodeDecodeError:
            _reject(f"body.{name}", "utf_8", "Not UTF-8")
        if name in self._given:
            _reject(f"body.{name}", REPEATED, "Given more than once")
        self._given[name] = value
        self._option = None
        self._value.clear()

    def _on_end(self) -> None:
        self._ended = True


def _reject(field: str, rule: str, message: str) -> NoReturn:
    raise Unprocessable([FieldError(field, rule, message)])
