"""Liveness: whether the worker's parts still turn, judged by what they did, not by their being.

Only what a restart would mend counts. What waits for Redis or Postgres is not stuck: silence of
the consumer is held against it only for the time in which Redis has answered somebody else.
"""

import mmap
import time
from collections.abc import Iterable
from typing import Final

LOOK_SECONDS: Final = 5.0
TICK_SECONDS: Final = 5.0

CONSUMER_SECONDS = 90.0
"""Celery tries a lost connection again after half a minute at the latest."""
LOOP_SECONDS = 300.0
"""Several times what one call of any loop takes when each of its transactions ends late."""


class Pulse:
    """When something turned last; beaten in this process or in one that is forked from it."""

    def __init__(self) -> None:
        # Shared and anonymous. A float of eight bytes is written whole or not at all.
        self._at = memoryview(mmap.mmap(-1, 8)).cast("d")
        self.beat()

    def beat(self) -> None:
        """It turns."""
        self._at[0] = time.monotonic()

    def at(self) -> float:
        """In seconds of `time.monotonic()`, which all processes share."""
        return self._at[0]


class Liveness:
    """The pulses of one worker, and the judge of them."""

    def __init__(self, *, task_seconds: float):
        """`task_seconds` is the time after which no task still runs, since it would be ended."""
        self.consumer, self.tasks = Pulse(), Pulse()
        self.loops: dict[str, tuple[Pulse, float]] = {}
        self._task_seconds = 3 * task_seconds
        self._stopping = False
        self._looked_at = float("-inf")
        self._answered_since: float | None = None
        self._queued_since: float | None = None

    def stop(self) -> None:
        """From now on nothing has to turn."""
        self._stopping = True

    def look(self, queued: int | None) -> None:
        """Tell how many messages wait; None when Redis does not answer."""
        now = self._looked_at = time.monotonic()
        if queued is None:
            self._answered_since = None
        elif self._answered_since is None:
            self._answered_since = now
        if not queued:
            self._queued_since = None
        elif self._queued_since is None:
            self._queued_since = now

    def stuck(self) -> str | None:
        """What a restart would mend, in words; None while all is well or nobody can say."""
        return None if self._stopping else next(iter(self._complaints(time.monotonic())), None)

    def _complaints(self, now: float) -> Iterable[str]:
        for name, (pulse, seconds) in self.loops.items():
            if now - pulse.at() > seconds + LOOP_SECONDS:
                yield f"the loop {name!r} has not come round for {now - pulse.at():.0f} s"
        if now - self._looked_at > 3 * LOOK_SECONDS or self._answered_since is None:
            return
        silent = now - max(self.consumer.at(), self._answered_since)
        if silent > CONSUMER_SECONDS:
            yield f"the consumer has been silent for {silent:.0f} s while Redis answers"
        if self._queued_since is None:
            return
        # Redis gives a message to a consumer that waits for one at once; a queue that is not empty
        # has none that waits, so each is busy, and what keeps it busy ends in time, or deaf.
        idle = now - max(self.tasks.at(), self._queued_since)
        if idle > self._task_seconds:
            yield f"no task has begun or ended for {idle:.0f} s while messages wait"
