"""Liveness by heartbeat: a part counts as stuck when it made no progress, not when it is missing.

Only what a restart would fix counts. A part that waits for Redis or Postgres is not stuck: the
consumer's silence counts only for the time in which Redis has answered the health check.
"""

import mmap
import time
from collections.abc import Iterable
from typing import Final

POLL_SECONDS: Final = 5.0
TICK_SECONDS: Final = 5.0

CONSUMER_TIMEOUT_SECONDS = 90.0
"""Celery retries a lost connection at least every half minute."""
THREAD_TIMEOUT_SECONDS = 300.0
"""Several times the duration of any thread's call in which every transaction times out."""


class Heartbeat:
    """The time of the last beat, shared with forked processes."""

    def __init__(self) -> None:
        # Shared anonymous memory; an aligned float of eight bytes is written atomically.
        self._last_beat = memoryview(mmap.mmap(-1, 8)).cast("d")
        self.beat()

    def beat(self) -> None:
        """Record progress now."""
        self._last_beat[0] = time.monotonic()

    def last_beat(self) -> float:
        """Return the last beat in seconds of `time.monotonic()`, which all processes share."""
        return self._last_beat[0]


class Liveness:
    """The heartbeats of one worker, and the verdict on them."""

    def __init__(self, *, task_time_limit: float):
        """`task_time_limit` is in seconds: Celery kills a task that runs longer."""
        self.consumer, self.tasks = Heartbeat(), Heartbeat()
        self.threads: dict[str, tuple[Heartbeat, float]] = {}
        self._task_timeout = 3 * task_time_limit
        self._stopping = False
        self._polled_at = float("-inf")
        self._redis_up_since: float | None = None
        self._queued_since: float | None = None

    def stop(self) -> None:
        """Expect no progress from now on: the worker shuts down."""
        self._stopping = True

    def record_poll(self, queued: int | None) -> None:
        """Record how many messages wait in Redis; None if Redis did not answer."""
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
        """Return the first reason for a restart as a sentence; None while none is known."""
        return None if self._stopping else next(iter(self._complaints(time.monotonic())), None)

    def _complaints(self, now: float) -> Iterable[str]:
        for name, (heartbeat, seconds) in self.threads.items():
            silent = now - heartbeat.last_beat()
            if silent > seconds + THREAD_TIMEOUT_SECONDS:
                yield f"the thread {name!r} has made no progress for {silent:.0f} s"
        if now - self._polled_at > 3 * POLL_SECONDS or self._redis_up_since is None:
            return
        silent = now - max(self.consumer.last_beat(), self._redis_up_since)
        if silent > CONSUMER_TIMEOUT_SECONDS:
            yield f"the consumer has been silent for {silent:.0f} s while Redis answers"
        if self._queued_since is None:
            return
        # Redis hands a message to a waiting consumer at once, so every consumer is busy while the
        # queue is not empty. A busy one ends its task within the time limit, or it is stuck.
        idle = now - max(self.tasks.last_beat(), self._queued_since)
        if idle > self._task_timeout:
            yield f"no task has started or ended for {idle:.0f} s while messages wait"
