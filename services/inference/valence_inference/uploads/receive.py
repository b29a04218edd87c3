"""Receiving a request's body as a submission, without blocking the event loop."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Final

from valence_common.problems import UnsupportedMedia
from valence_common.web.request_body import (
    JSON_TYPE,
    THREAD_THRESHOLD_BYTES,
    ContentType,
    StrictRequest,
)
from valence_inference.batches import webhook_secrets
from valence_inference.batches.submission import Submission
from valence_inference.settings import Settings
from valence_inference.uploads.chunking import UploadLimits
from valence_inference.uploads.memory import Reservation
from valence_inference.uploads.multipart import MultipartUpload
from valence_inference.uploads.options import BatchOptions
from valence_inference.uploads.upload import FILES, Upload, file_upload, json_upload

FORM: Final = "multipart/form-data"
KINDS: Final = {JSON_TYPE: (), **FILES, FORM: ("boundary",)}
"""The media types of a batch, with the parameters that each may have."""


async def receive(
    request: StrictRequest, options: BatchOptions, settings: Settings, reservation: Reservation
) -> Submission:
    """Read, check and chunk a batch without storing it.

    Raises the error that rejects it as early as possible, and what `StrictRequest.stream_limited`
    and `Reservation.grow` raise.
    """
    upload = _open_upload(request.content_type(KINDS), options, settings)
    stream = request.stream_limited(
        max_bytes=settings.batch_body_bytes, timeout=settings.body_timeout_seconds
    )
    async with stream as parts:
        return await _feed(upload, parts, reservation)


def _open_upload(media: ContentType, options: BatchOptions, settings: Settings) -> Upload:
    limits = UploadLimits(
        max_text_characters=settings.max_text_characters,
        max_batch_texts=settings.max_batch_texts,
        chunk_texts=settings.chunk_texts,
        batch_body_bytes=settings.batch_body_bytes,
    )
    check_url = functools.partial(
        webhook_secrets.check_url,
        enabled=settings.webhooks_enabled,
        allow_http=settings.webhooks_allow_http,
        allowed_networks=settings.webhooks_allowed_networks,
    )
    if media.media_type == JSON_TYPE:
        return json_upload(options, limits, check_url)
    if media.media_type != FORM:
        return file_upload(media, options, limits, check_url)
    boundary = media.parameters.get("boundary")
    if not boundary:
        raise UnsupportedMedia("The form has no boundary")
    return MultipartUpload(boundary, options, limits, check_url)


async def _feed(
    upload: Upload, parts: AsyncIterator[bytes], reservation: Reservation
) -> Submission:
    """Feed the first part at once, then ever larger ones, up to `THREAD_THRESHOLD_BYTES`.

    An incomplete row is read again with the next part, which would be slow with many small parts.
    """
    pending, fed = bytearray(), 0
    async for part in parts:
        reservation.grow(len(part))
        pending += part
        if len(pending) >= min(fed, THREAD_THRESHOLD_BYTES):
            fed += len(pending)
            in_thread = len(pending) >= THREAD_THRESHOLD_BYTES
            await _run(upload.feed, bytes(pending), in_thread=in_thread)
            pending.clear()
    in_thread = fed + len(pending) >= THREAD_THRESHOLD_BYTES
    await _run(upload.feed, bytes(pending), in_thread=in_thread)
    if in_thread:
        return await asyncio.to_thread(upload.end)
    return upload.end()


async def _run(feed: Callable[[bytes], None], part: bytes, *, in_thread: bool) -> None:
    if in_thread:
        await asyncio.to_thread(feed, part)
    else:
        feed(part)
