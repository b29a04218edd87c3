"""The sweeper of each worker's parent process: recovers chunks and makes partitions."""

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
    """Requeues chunks whose lease expired, resolves exhausted ones and rings for waiting ones."""

    def __init__(self, settings: Settings, database: Database, doorbell: Doorbell):
        self._settings = settings
        self._database = database
        self._doorbell = doorbell
        self._partitions_at = time.monotonic()

    def sweep(self) -> None:
        """Sweep once."""
        max_attempts = self._settings.max_attempts
        with self._database.transaction() as session:
            expired = recovery.requeue_expired(session)
        if expired:
            metrics.LEASES_EXPIRED.inc(expired)
            structlog.get_logger().warning("leases_expired", chunks=expired)
        resolved = recovery.resolve_exhausted(
            self._database, max_attempts=max_attempts, store_texts=self._settings.store_texts
        )
        if resolved:
            structlog.get_logger().warning("exhausted_chunks_settled", chunks=resolved)
        with self._database.transaction() as session:
            current = backlog.measure(session, max_attempts=max_attempts)
        metrics.CHUNKS_WAITING.set(current.waiting)
        metrics.CHUNKS_RUNNING.set(current.running)
        metrics.OLDEST_CHUNK_SECONDS.set(current.oldest_seconds)
        if current.waiting:
            # Messages already in the queue count, so their number stays bounded.
            self._doorbell.ring(min(current.waiting, MAX_RINGS), max_queued=MAX_RINGS)
        if time.monotonic() >= self._partitions_at:
            with self._database.transaction() as session:
                session.execute(_MAKE_PARTITIONS, {"ahead": MONTHS_AHEAD})
            self._partitions_at = time.monotonic() + PARTITION_SECONDS
