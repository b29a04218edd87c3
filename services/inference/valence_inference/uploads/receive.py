"""A request's body received: from its parts to a submission, while the event loop goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from valence_common.problems import UnsupportedMedia
from valence_common.web.request_body import (
    JSON_TYPE,
    THREAD_THRESHOLD_BYTES,
    ContentType,
    StrictRequest,
)
from valence_inference.schemas.submissions import BatchOptions
from valence_inference.settings import Settings
from valence_inference.uploads.chunking import UploadLimits
from valence_inference.uploads.memory import Reservation
from valence_inference.uploads.multipart import MultipartUpload
from valence_inference.uploads.upload import FILES, Submission, Upload, file_upload, json_upload

FORM: Final = "multipart/form-data"
KINDS: Final = {JSON_TYPE: (), **FILES, FORM: ("boundary",)}
"""What a batch may come in, with the parameters that each may have."""


async def receive(
    request: StrictRequest, options: BatchOptions, settings: Settings, reservation: Reservation
) -> Submission:
    """Read, check and pack a batch, and store nothing.

    Raises what refuses it as soon as that is known, and what `StrictRequest.reading` and
    `Place.take` raise.
    """
    upload = _open(request.content_type(KINDS), options, settings)
    reading = request.stream_limited(
        max_bytes=settings.batch_body_bytes, timeout=settings.body_timeout_seconds
    )
    async with reading as parts:
        return await _feed(upload, parts, reservation)


def _open(media: ContentType, options: BatchOptions, settings: Settings) -> Upload:
    limits = UploadLimits(
        max_text_characters=settings.max_text_characters,
        max_batch_texts=settings.max_batch_texts,
        chunk_texts=settings.chunk_texts,
        batch_body_bytes=settings.batch_body_bytes,
    )
    if media.media_type == JSON_TYPE:
        return json_upload(options, limits)
    if media.media_type != FORM:
        return file_upload(media, options, limits)
    boundary = media.parameters.get("boundary")
    if not boundary:
        raise UnsupportedMedia("The form names no boundary")
    return MultipartUpload(boundary, options, limits)


async def _feed(
    upload: Upload, parts: AsyncIterator[bytes], reservation: Reservation
) -> Submission:
    """Feed it at once with what comes first, then with more at a time.

    A row that is not whole yet is read again with the next part: small parts would make that dear.
    """
    waiting, fed = bytearray(), 0
    async for part in parts:
        reservation.grow(len(part))
        waiting += part
        if len(waiting) >= min(fed, THREAD_THRESHOLD_BYTES):
            fed += len(waiting)
            await _work(upload.feed, bytes(waiting), large=len(waiting) >= THREAD_THRESHOLD_BYTES)
            waiting.clear()
    large = fed + len(waiting) >= THREAD_THRESHOLD_BYTES
    await _work(upload.feed, bytes(waiting), large=large)
    if large:
        return await asyncio.to_thread(upload.end)
    return upload.end()


async def _work(feed: Callable[[bytes], None], part: bytes, *, large: bool) -> None:
    if large:
        await asyncio.to_thread(feed, part)
    else:
        feed(part)
