"""Uploads read in parts of any size, without any process."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

from valence_common.web.request_body import ContentType
from valence_inference.batches.submission import Submission
from valence_inference.uploads.chunking import UploadLimits
from valence_inference.uploads.options import BatchOptions
from valence_inference.uploads.upload import CSV, JsonUpload, Upload, file_upload

LIMITS = UploadLimits(10_000, 100_000, 500, 32 * 1024 * 1024)


def limits(
    *, characters: int = 10_000, texts: int = 100_000, chunk_texts: int = 500
) -> UploadLimits:
    return UploadLimits(characters, texts, chunk_texts, LIMITS.batch_body_bytes)


def any_url(_url: str) -> None:
    """Accept every webhook URL."""


def read(upload: Upload, body: bytes, cuts: Iterable[int] = ()) -> Submission:
    """Feed the body, split at these offsets, and end it."""
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(places):
        upload.feed(body[start:end])
    return upload.end()


def read_file(
    body: bytes,
    cuts: Iterable[int] = (),
    *,
    kind: str = CSV,
    limits: UploadLimits = LIMITS,
    **options: Any,
) -> Submission:
    media = ContentType(kind, {})
    return read(file_upload(media, BatchOptions(**options), limits, any_url), body, cuts)


def read_json(body: bytes, cuts: Iterable[int] = (), limits: UploadLimits = LIMITS) -> Submission:
    return read(JsonUpload(limits, any_url), body, cuts)


def texts_of(submission: Submission) -> list[str]:
    """Return all texts in order."""
    return [text for chunk in submission.chunks for text in json.loads(chunk.texts)]


def rows_of(submission: Submission) -> list[Any]:
    """Return what else each row held; None for nothing."""
    return [
        row
        for chunk in submission.chunks
        for row in (json.loads(chunk.rows) if chunk.rows else [None] * chunk.size)
    ]


def table_of(submission: Submission) -> list[list[str]]:
    """The rows as they stood in the file."""
    table = []
    for text, rest in zip(texts_of(submission), rows_of(submission), strict=True):
        cells = list(rest or [])
        cells.insert(submission.text_column, text)
        table.append(cells)
    return table
