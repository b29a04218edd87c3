"""Bounds on the memory that one process uses for uploads, while they arrive and are stored."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from valence_common.concurrency import ConcurrencyLimit

MAX_BODIES, MAX_USER_BODIES = 4, 2
"""Bodies of the largest size in one process, and of one user."""

FREE_BYTES: Final = 256 * 1024
"""The part of each body that is not counted: a body of this size is always accepted."""

RETRY_SECONDS: Final = 5


class UploadMemory:
    """Counts the bytes of all uploads; a slow upload holds its bytes for as long as it lasts."""

    def __init__(self, *, body_bytes: int):
        """`body_bytes` is the size of the largest body."""
        self._limit = ConcurrencyLimit(
            max_total=MAX_BODIES * body_bytes,
            per_user=MAX_USER_BODIES * body_bytes,
            retry_after=RETRY_SECONDS,
            dependency="uploads",
        )

    @contextmanager
    def reserve(self, user_id: uuid.UUID) -> Iterator["Reservation"]:
        """Open an empty reservation for one body; it is released at the end of the block."""
        reservation = Reservation(self._limit, user_id)
        try:
            yield reservation
        finally:
            reservation.release()


class Reservation:
    """The bytes that one body holds."""

    def __init__(self, limit: ConcurrencyLimit, user_id: uuid.UUID):
        self._limit, self._user_id = limit, user_id
        self._counted, self._free = 0, FREE_BYTES

    def grow(self, size: int) -> None:
        """Add bytes that arrived.

        Raises `TooManyRequests` if the user's uploads are too large together, or `Unavailable` if
        those of all users are.
        """
        counted = max(size - self._free, 0)
        if counted:
            self._limit.acquire(self._user_id, counted)
        self._free -= size - counted
        self._counted += counted

    def release(self) -> None:
        """Return all bytes."""
        if self._counted:
            self._limit.release(self._user_id, self._counted)
            self._counted = 0
