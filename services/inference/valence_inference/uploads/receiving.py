"""A request's body received: from its parts to a submission, while the event loop goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from valence_common.bodies import IN_THREAD_BYTES, JSON_TYPE, Media, StrictRequest
from valence_common.problems import UnsupportedMedia
from valence_inference.schemas.submissions import BatchOptions
from valence_inference.settings import Settings
from valence_inference.uploads.forms import FormUpload
from valence_inference.uploads.packing import Limits
from valence_inference.uploads.room import Place
from valence_inference.uploads.upload import FILES, Submission, Upload, file_upload, json_upload

FORM: Final = "multipart/form-data"
KINDS: Final = {JSON_TYPE: (), **FILES, FORM: ("boundary",)}
"""What a batch may come in, with the parameters that each may have."""


async def receive(
    request: StrictRequest, options: BatchOptions, settings: Settings, place: Place
) -> Submission:
    """Read, check and pack a batch, and store nothing.

    Raises what refuses it as soon as that is known, and what `StrictRequest.reading` and
    `Place.take` raise.
    """
    upload = _open(request.media(KINDS), options, settings)
    reading = request.reading(
        max_bytes=settings.batch_body_bytes, patience=settings.body_timeout_seconds
    )
    async with reading as parts:
        return await _feed(upload, parts, place)


def _open(media: Media, options: BatchOptions, settings: Settings) -> Upload:
    limits = Limits(
        max_text_characters=settings.max_text_characters,
        max_batch_texts=settings.max_batch_texts,
        chunk_texts=settings.chunk_texts,
        batch_body_bytes=settings.batch_body_bytes,
    )
    if media.kind == JSON_TYPE:
        return json_upload(options, limits)
    if media.kind != FORM:
        return file_upload(media, options, limits)
    boundary = media.parameters.get("boundary")
    if not boundary:
        raise UnsupportedMedia("The form names no boundary")
    return FormUpload(boundary, options, limits)


async def _feed(upload: Upload, parts: AsyncIterator[bytes], place: Place) -> Submission:
    """Feed it at once with what comes first, then with more at a time.

    A row that is not whole yet is read again with the next part: small parts would make that dear.
    """
    waiting, fed = bytearray(), 0
    async for part in parts:
        place.take(len(part))
        waiting += part
        if len(waiting) >= min(fed, IN_THREAD_BYTES):
            fed += len(waiting)
            await _work(upload.feed, bytes(waiting), large=len(waiting) >= IN_THREAD_BYTES)
            waiting.clear()
    large = fed + len(waiting) >= IN_THREAD_BYTES
    await _work(upload.feed, bytes(waiting), large=large)
    if large:
        return await asyncio.to_thread(upload.end)
    return upload.end()


async def _work(feed: Callable[[bytes], None], part: bytes, *, large: bool) -> None:
    if large:
        await asyncio.to_thread(feed, part)
    else:
        feed(part)
