"""Liveness: whether the worker's parts still turn, judged by what they did, not by their being.

Only what a restart would mend counts. What waits for Redis or Postgres is not stuck: silence of
the consumer is held against it only for the time in which Redis has answered somebody else.
"""

import mmap
import time
from collections.abc import Iterable
from typing import Final

POLL_SECONDS: Final = 5.0
TICK_SECONDS: Final = 5.0

CONSUMER_TIMEOUT_SECONDS = 90.0
"""Celery tries a lost connection again after half a minute at the latest."""
THREAD_TIMEOUT_SECONDS = 300.0
"""Several times what one call of any loop takes when each of its transactions ends late."""


class Heartbeat:
    """When something turned last; beaten in this process or in one that is forked from it."""

    def __init__(self) -> None:
        # Shared and anonymous. A float of eight bytes is written whole or not at all.
        self._last_beat = memoryview(mmap.mmap(-1, 8)).cast("d")
        self.beat()

    def beat(self) -> None:
        """It turns."""
        self._last_beat[0] = time.monotonic()

    def last_beat(self) -> float:
        """In seconds of `time.monotonic()`, which all processes share."""
        return self._last_beat[0]


class Liveness:
    """The pulses of one worker, and the judge of them."""

    def __init__(self, *, task_time_limit: float):
        """`task_seconds` is the time after which no task still runs, since it would be ended."""
        self.consumer, self.tasks = Heartbeat(), Heartbeat()
        self.threads: dict[str, tuple[Heartbeat, float]] = {}
        self._task_timeout = 3 * task_time_limit
        self._stopping = False
        self._polled_at = float("-inf")
        self._redis_up_since: float | None = None
        self._queued_since: float | None = None

    def stop(self) -> None:
        """From now on nothing has to turn."""
        self._stopping = True

    def record_poll(self, queued: int | None) -> None:
        """Tell how many messages wait; None when Redis does not answer."""
        now = self._polled_at = time.monotonic()
        if queued is None:
            self._redis_up_since = None
        elif self._redis_up_since is None:
            self._redis_up_since = now
        if not queued:
            self._queued_since = None
        elif self._queued_since is None:
            self._queued_since = now

    def stuck(self) -> str | None:
        """What a restart would mend, in words; None while all is well or nobody can say."""
        return None if self._stopping else next(iter(self._complaints(time.monotonic())), None)

    def _complaints(self, now: float) -> Iterable[str]:
        for name, (pulse, seconds) in self.threads.items():
            if now - pulse.last_beat() > seconds + THREAD_TIMEOUT_SECONDS:
                yield f"the loop {name!r} has not come round for {now - pulse.last_beat():.0f} s"
        if now - self._polled_at > 3 * POLL_SECONDS or self._redis_up_since is None:
            return
        silent = now - max(self.consumer.last_beat(), self._redis_up_since)
        if silent > CONSUMER_TIMEOUT_SECONDS:
            yield f"the consumer has been silent for {silent:.0f} s while Redis answers"
        if self._queued_since is None:
            return
        # Redis gives a message to a consumer that waits for one at once; a queue that is not empty
        # has none that waits, so each is busy, and what keeps it busy ends in time, or deaf.
        idle = now - max(self.tasks.last_beat(), self._queued_since)
        if idle > self._task_timeout:
            yield f"no task has begun or ended for {idle:.0f} s while messages wait"
