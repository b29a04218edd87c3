"""One worker process at work: claim, score, complete, until nothing is left or its turn is over."""

import time
import uuid
from dataclasses import dataclass, field

import structlog

from valence_batch_worker import metrics
from valence_batch_worker.batches import chunks
from valence_batch_worker.settings import Settings
from valence_common.db import Database
from valence_common.log import log_fields
from valence_common.problems import Unavailable
from valence_ml import Scorer, model_name

TIME_SLICE_SECONDS = 2.0
"""A task ends after this time, so that a shutdown never waits for a long queue."""

REQUEUE_TIMEOUT_SECONDS = 2.0
"""Short, for it is the last that a process does when the worker is told to end."""


@dataclass
class Worker:
    """What one process needs to work on chunks; `after` is the user whom it served last."""

    settings: Settings
    database: Database
    scorer: Scorer
    # Anywhere: processes that all begin at the same user would go around side by side.
    last_user_id: uuid.UUID = field(default_factory=uuid.uuid4)

    def run_time_slice(self) -> bool:
        """Work on chunks for one turn; True when there may be more to do."""
        ends = time.monotonic() + TIME_SLICE_SECONDS
        try:
            while time.monotonic() < ends:
                if not self.work_once():
                    return False
        except Unavailable as error:
            # The sweeper rings when there is work again: nothing is lost but time.
            structlog.get_logger().warning("unavailable", dependency=error.dependency)
            return False
        return True

    def work_once(self) -> bool:
        """Work on one chunk; False when there is none."""
        started = time.perf_counter()
        with self.database.transaction() as session:
            mine = chunks.claim(
                session,
                lease_seconds=self.settings.lease_seconds,
                max_attempts=self.settings.max_attempts,
                user_chunks=self.settings.user_chunks,
                last_user_id=self.last_user_id,
            )
        if mine is None:
            return False
        self.last_user_id = mine.user_id
        metrics.ATTEMPTS.labels(str(min(mine.attempt, 4))).inc()
        try:
            outcome = self._attempt(mine)
        except (Unavailable, SystemExit):
            # Postgres cannot store it, or the worker's grace is over and Celery ends this process
            # by an exception, wherever it is. Neither is the fault of the texts.
            self._requeue(mine)
            raise
        metrics.CHUNKS.labels(outcome).inc()
        metrics.CHUNK_SECONDS.observe(time.perf_counter() - started)
        return True

    def _requeue(self, claim: chunks.Claim) -> None:
        ends = time.monotonic() + REQUEUE_TIMEOUT_SECONDS
        try:
            with self.database.transaction(deadline=ends) as session:
                given = chunks.requeue_uncounted(session, claim)
        except Unavailable:
            return  # its lease runs out, and the attempt stays counted
        if given:
            structlog.get_logger().info("chunk_given_back", chunk=str(claim.id))
            metrics.CHUNKS.labels("given_back").inc()

    def _attempt(self, claim: chunks.Claim) -> str:
        try:
            scores = self.scorer.score(claim.texts)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; the text is suspect
            structlog.get_logger().error("scoring_failed", chunk=str(claim.id), **log_fields(error))
            with self.database.transaction() as session:
                chunks.requeue_counted(session, claim)
            return "error"
        try:
            with self.database.transaction() as session:
                ended = chunks.complete(
                    session,
                    claim,
                    scores,
                    model_name(self.scorer),
                    store_texts=self.settings.store_texts,
                )
        except chunks.LeaseLost:
            return "lost"
        metrics.TEXTS.inc(len(scores))
        chunks.report_ended(claim, ended)
        return "done"
