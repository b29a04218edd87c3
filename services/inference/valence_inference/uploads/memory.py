"""Room: how much of the bodies that come in, or are being stored, one process holds at a time."""

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from valence_common.problems import TooManyRequests, Unavailable

MAX_BODIES, MAX_USER_BODIES = 4, 2
"""As many bodies of the largest size in one process, and of one user."""

FREE_BYTES: Final = 256 * 1024
"""Of each body; what is no larger is always taken."""

RETRY_SECONDS: Final = 5


class UploadMemory:
    """Counts what is held; what comes in slowly is held for as long."""

    def __init__(self, *, body_bytes: int):
        """`body_bytes` is the largest body."""
        self._most, self._each = MAX_BODIES * body_bytes, MAX_USER_BODIES * body_bytes
        self._held: Counter[uuid.UUID] = Counter()

    @contextmanager
    def reserve(self, user_id: uuid.UUID) -> Iterator["Reservation"]:
        """A body's place, for as long as anything of it is held."""
        place = Reservation(self, user_id)
        try:
            yield place
        finally:
            place.release()

    def acquire(self, user_id: uuid.UUID, octets: int) -> None:
        """Hold so much more; raises `TooManyRequests`, or `Unavailable` if others fill the room."""
        if self._held[user_id] + octets > self._each:
            raise TooManyRequests(RETRY_SECONDS)
        if self._held.total() + octets > self._most:
            raise Unavailable("uploads")
        self._held[user_id] += octets

    def release(self, user_id: uuid.UUID, octets: int) -> None:
        """Hold so much less."""
        self._held[user_id] -= octets
        self._held += Counter()  # keeps those above zero


class Reservation:
    """What is held of one body."""

    def __init__(self, room: UploadMemory, user_id: uuid.UUID):
        self._room, self._user_id = room, user_id
        self._octets, self._free = 0, FREE_BYTES

    def grow(self, octets: int) -> None:
        """More of it came; raises what `Room.take` does."""
        charged = max(octets - self._free, 0)
        if charged:
            self._room.acquire(self._user_id, charged)
        self._free -= octets - charged
        self._octets += charged

    def release(self) -> None:
        """Nothing is held of it any more."""
        if self._octets:
            self._room.release(self._user_id, self._octets)
            self._octets = 0
