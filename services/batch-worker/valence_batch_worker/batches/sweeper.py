"""The sweeper: in every worker's parent process it looks after what fell down."""

import time

import structlog
from sqlalchemy import text

from valence_batch_worker import metrics
from valence_batch_worker.batches import backlog, recovery
from valence_batch_worker.settings import Settings
from valence_common.celery_app import Doorbell
from valence_common.db import Database

MAX_RINGS = 16
MONTHS_AHEAD = 3
PARTITION_SECONDS = 24 * 3600

_MAKE_PARTITIONS = text("SELECT valence_make_partitions(:ahead)")


class Sweeper:
    """Looks again and again, in a thread of its own so that no lease is late."""

    def __init__(self, settings: Settings, database: Database, doorbell: Doorbell):
        self._settings = settings
        self._database = database
        self._doorbell = doorbell
        self._partitions_at = time.monotonic()

    def sweep(self) -> None:
        """Look once: expired leases, exhausted chunks, work that nobody rang for."""
        most = self._settings.max_attempts
        with self._database.transaction() as session:
            expired = recovery.requeue_expired(session)
        if expired:
            metrics.LEASES_EXPIRED.inc(expired)
            structlog.get_logger().warning("leases_expired", chunks=expired)
        settled = recovery.resolve_exhausted(
            self._database, max_attempts=most, store_texts=self._settings.store_texts
        )
        if settled:
            structlog.get_logger().warning("exhausted_chunks_settled", chunks=settled)
        with self._database.transaction() as session:
            seen = backlog.measure(session, max_attempts=most)
        metrics.CHUNKS_WAITING.set(seen.waiting)
        metrics.CHUNKS_RUNNING.set(seen.running)
        metrics.OLDEST_CHUNK_SECONDS.set(seen.oldest_seconds)
        if seen.waiting:
            # Rings that wait in the queue already will be heard: their number stays bounded.
            self._doorbell.ring(min(seen.waiting, MAX_RINGS), max_queued=MAX_RINGS)
        if time.monotonic() >= self._partitions_at:
            with self._database.transaction() as session:
                session.execute(_MAKE_PARTITIONS, {"ahead": MONTHS_AHEAD})
            self._partitions_at = time.monotonic() + PARTITION_SECONDS
