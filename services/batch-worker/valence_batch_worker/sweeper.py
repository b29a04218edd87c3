"""The sweeper: a thread in every worker's parent process that looks after what fell down."""

import threading
import time

import structlog
from sqlalchemy import text

from valence_batch_worker import metrics, sweeping
from valence_batch_worker.settings import Settings
from valence_common.db import Database
from valence_common.log import describe
from valence_common.problems import Unavailable
from valence_common.queue import Doorbell

MOST_RINGS = 16
MONTHS_AHEAD = 3
PARTITIONS_EVERY_SECONDS = 24 * 3600

_MAKE_PARTITIONS = text("SELECT valence_make_partitions(:ahead)")


class Sweeper(threading.Thread):
    """Sweeps every `sweep_seconds` until stopped; an error ends one sweep, never the thread."""

    def __init__(self, settings: Settings, database: Database, doorbell: Doorbell):
        super().__init__(name="sweeper", daemon=True)
        self._settings = settings
        self._database = database
        self._doorbell = doorbell
        self._stopping = threading.Event()
        self._partitions_at = time.monotonic()

    def run(self) -> None:
        """Sweep until stopped."""
        while not self._stopping.wait(self._settings.sweep_seconds):
            try:
                self.sweep()
            except Unavailable as error:
                structlog.get_logger().warning("unavailable", dependency=error.dependency)
            except Exception as error:  # noqa: BLE001 - the next sweep must come whatever happens
                structlog.get_logger().error("sweep_failed", **describe(error))

    def stop(self) -> None:
        """End after the sweep under way."""
        self._stopping.set()

    def sweep(self) -> None:
        """Look once: expired leases, exhausted chunks, work that nobody rang for."""
        most = self._settings.max_attempts
        with self._database.transaction() as session:
            expired = sweeping.expire(session)
        if expired:
            metrics.LEASES_EXPIRED.inc(expired)
            structlog.get_logger().warning("leases_expired", chunks=expired)
        settled = sweeping.settle_exhausted(self._database, max_attempts=most)
        if settled:
            structlog.get_logger().warning("exhausted_chunks_settled", chunks=settled)
        with self._database.transaction() as session:
            waiting = sweeping.waiting(session, max_attempts=most, most=MOST_RINGS)
        metrics.WAITING.set(waiting)
        if waiting:
            # Rings that wait in the queue already will be heard: their number stays bounded.
            self._doorbell.ring(waiting, at_most_queued=MOST_RINGS)
        if time.monotonic() >= self._partitions_at:
            with self._database.transaction() as session:
                session.execute(_MAKE_PARTITIONS, {"ahead": MONTHS_AHEAD})
            self._partitions_at = time.monotonic() + PARTITIONS_EVERY_SECONDS
