"""A thread of the worker's parent process that calls one function periodically."""

import threading
from collections.abc import Callable

import structlog

from valence_batch_worker.liveness import Heartbeat
from valence_common.log import log_fields
from valence_common.problems import Unavailable


class PeriodicThread(threading.Thread):
    """Calls `work` every `seconds` until stopped; an error ends the call, not the thread.

    A call must end within a minute, whatever is down: `liveness` restarts a worker whose thread
    has not completed a call for five.
    """

    def __init__(self, name: str, seconds: float, work: Callable[[], None]):
        super().__init__(name=name, daemon=True)
        self.heartbeat = Heartbeat()
        self.seconds = seconds
        self._work = work
        self._stopping = threading.Event()

    def run(self) -> None:
        """Call `work` until stopped."""
        while not self._stopping.wait(self.seconds):
            try:
                self._work()
            except Unavailable as error:
                structlog.get_logger().warning("unavailable", dependency=error.dependency)
            except Exception as error:  # noqa: BLE001 - the thread must survive any error
                structlog.get_logger().error(f"{self.name}_failed", **log_fields(error))
            self.heartbeat.beat()

    def stop(self) -> None:
        """End after the current call."""
        self._stopping.set()
