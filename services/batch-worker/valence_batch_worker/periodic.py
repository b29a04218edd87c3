"""A thread of the worker's parent process that does one thing again and again."""

import threading
from collections.abc import Callable

import structlog

from valence_batch_worker.liveness import Heartbeat
from valence_common.log import log_fields
from valence_common.problems import Unavailable


class PeriodicThread(threading.Thread):
    """Calls `work` every `seconds` until stopped; an error ends one call, never the thread.

    A call takes a minute at most, whatever is down: `liveness` restarts a worker whose loop has
    not come round for five.
    """

    def __init__(self, name: str, seconds: float, work: Callable[[], None]):
        super().__init__(name=name, daemon=True)
        self.heartbeat = Heartbeat()
        self.seconds = seconds
        self._work = work
        self._stopping = threading.Event()

    def run(self) -> None:
        """Work until stopped."""
        while not self._stopping.wait(self.seconds):
            try:
                self._work()
            except Unavailable as error:
                structlog.get_logger().warning("unavailable", dependency=error.dependency)
            except Exception as error:  # noqa: BLE001 - the next call must come whatever happens
                structlog.get_logger().error(f"{self.name}_failed", **log_fields(error))
            self.heartbeat.beat()

    def stop(self) -> None:
        """End after the call under way."""
        self._stopping.set()
