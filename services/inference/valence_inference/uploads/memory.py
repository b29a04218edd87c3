"""Room: how much of the bodies that come in, or are being stored, one process holds at a time."""

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from valence_common.problems import TooManyRequests, Unavailable

BODIES, BODIES_EACH = 4, 2
"""As many bodies of the largest size in one process, and of one user."""

FREE_BYTES: Final = 256 * 1024
"""Of each body; what is no larger is always taken."""

RETRY_SECONDS: Final = 5


class Room:
    """Counts what is held; what comes in slowly is held for as long."""

    def __init__(self, *, body_bytes: int):
        """`body_bytes` is the largest body."""
        self._most, self._each = BODIES * body_bytes, BODIES_EACH * body_bytes
        self._held: Counter[uuid.UUID] = Counter()

    @contextmanager
    def place(self, user_id: uuid.UUID) -> Iterator["Place"]:
        """A body's place, for as long as anything of it is held."""
        place = Place(self, user_id)
        try:
            yield place
        finally:
            place.leave()

    def take(self, user_id: uuid.UUID, octets: int) -> None:
        """Hold so much more; raises `TooManyRequests`, or `Unavailable` if others fill the room."""
        if self._held[user_id] + octets > self._each:
            raise TooManyRequests(RETRY_SECONDS)
        if self._held.total() + octets > self._most:
            raise Unavailable("uploads")
        self._held[user_id] += octets

    def give_back(self, user_id: uuid.UUID, octets: int) -> None:
        """Hold so much less."""
        self._held[user_id] -= octets
        self._held += Counter()  # keeps those above zero


class Place:
    """What is held of one body."""

    def __init__(self, room: Room, user_id: uuid.UUID):
        self._room, self._user_id = room, user_id
        self._octets, self._free = 0, FREE_BYTES

    def take(self, octets: int) -> None:
        """More of it came; raises what `Room.take` does."""
        charged = max(octets - self._free, 0)
        if charged:
            self._room.take(self._user_id, charged)
        self._free -= octets - charged
        self._octets += charged

    def leave(self) -> None:
        """Nothing is held of it any more."""
        if self._octets:
            self._room.give_back(self._user_id, self._octets)
            self._octets = 0
