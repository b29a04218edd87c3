"""One scoring process: claim, score and complete chunks for one time slice."""

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
"""A task ends after this time, so a shutdown never waits for a long queue."""

REQUEUE_TIMEOUT_SECONDS = 2.0
"""Short: requeueing is the last thing a process does during a shutdown."""


@dataclass
class Worker:
    """The state of one scoring process; `last_user_id` is the user it served last."""

    settings: Settings
    database: Database
    scorer: Scorer
    # Random, so that processes do not visit the users in lockstep.
    last_user_id: uuid.UUID = field(default_factory=uuid.uuid4)

    def run_time_slice(self) -> bool:
        """Process chunks for one time slice; return whether more may wait."""
        ends = time.monotonic() + TIME_SLICE_SECONDS
        try:
            while time.monotonic() < ends:
                if not self.work_once():
                    return False
        except Unavailable as error:
            # The sweeper rings again while chunks wait, so only time is lost.
            structlog.get_logger().warning("unavailable", dependency=error.dependency)
            return False
        return True

    def work_once(self) -> bool:
        """Process one chunk; return False if none is claimable."""
        started = time.perf_counter()
        with self.database.transaction() as session:
            claim = chunks.claim(
                session,
                lease_seconds=self.settings.lease_seconds,
                max_attempts=self.settings.max_attempts,
                user_chunks=self.settings.user_chunks,
                last_user_id=self.last_user_id,
            )
        if claim is None:
            return False
        self.last_user_id = claim.user_id
        metrics.ATTEMPTS.labels(str(min(claim.attempt, 4))).inc()
        try:
            outcome = self._attempt(claim)
        except (Unavailable, SystemExit):
            # Postgres cannot store the results, or the soft shutdown timed out and Celery ends this
            # process by an exception. The texts did not cause either.
            self._requeue(claim)
            raise
        metrics.CHUNKS.labels(outcome).inc()
        metrics.CHUNK_SECONDS.observe(time.perf_counter() - started)
        return True

    def _requeue(self, claim: chunks.Claim) -> None:
        ends = time.monotonic() + REQUEUE_TIMEOUT_SECONDS
        try:
            with self.database.transaction(deadline=ends) as session:
                requeued = chunks.requeue_uncounted(session, claim)
        except Unavailable:
            return  # the lease expires and the attempt stays counted
        if requeued:
            structlog.get_logger().info("chunk_given_back", chunk=str(claim.id))
            metrics.CHUNKS.labels("given_back").inc()

    def _attempt(self, claim: chunks.Claim) -> str:
        try:
            scores = self.scorer.score(claim.texts)
        except Exception as error:  # noqa: BLE001 - a model may raise anything
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
