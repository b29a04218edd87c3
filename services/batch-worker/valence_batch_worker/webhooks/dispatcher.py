"""The dispatcher: a thread of the worker's parent process that sends due webhooks concurrently."""

import asyncio
import threading
import time
import uuid
from collections import Counter
from datetime import timedelta
from typing import Final

import structlog

from valence_batch_worker import metrics
from valence_batch_worker.liveness import Heartbeat
from valence_batch_worker.settings import Settings
from valence_batch_worker.webhooks import deliveries
from valence_batch_worker.webhooks.deliveries import Delivery, Outcome
from valence_batch_worker.webhooks.sender import Sender
from valence_common.db import Database
from valence_common.log import log_fields
from valence_common.problems import Unavailable

MAX_CONCURRENT: Final = 16
MAX_PER_USER: Final = 4
"""Concurrency limit per user: a receiver that hangs leaves capacity for other users."""

LEASE_MARGIN_SECONDS: Final = 30.0
"""Time in the lease beyond the attempt's timeout, to record the outcome."""

HOUSEKEEPING_SECONDS: Final = 60.0


class Dispatcher(threading.Thread):
    """Claims and sends deliveries until stopped; any number of dispatchers may run.

    It polls at least every `seconds`, and `heartbeat` beats with each poll.
    """

    def __init__(self, settings: Settings, database: Database, sender: Sender | None = None):
        super().__init__(name="webhooks", daemon=True)
        self._database = database
        self.seconds = settings.sweep_seconds
        self.heartbeat = Heartbeat()
        self._lease = timedelta(seconds=settings.webhook_timeout_seconds + LEASE_MARGIN_SECONDS)
        self._sender = sender or Sender(
            timeout=settings.webhook_timeout_seconds,
            allow_http=settings.webhooks_allow_http,
            allowed_networks=settings.webhooks_allowed_networks,
        )
        self._stopping = threading.Event()
        self._stop_event: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Random, so that dispatchers do not visit the users in lockstep.
        self._last_user_id = uuid.uuid4()
        self._in_flight: dict[asyncio.Task[None], uuid.UUID] = {}
        self._housekeeping_at = float("-inf")

    def run(self) -> None:
        """Dispatch until stopped, then finish the deliveries in flight."""
        asyncio.run(self._run())

    def stop(self) -> None:
        """Start no more deliveries."""
        self._stopping.set()
        if self._loop is not None and self._stop_event is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop_event.set)

    async def _run(self) -> None:
        self._loop, self._stop_event = asyncio.get_running_loop(), asyncio.Event()
        stopped = asyncio.create_task(self._stop_event.wait())
        while not self._stopping.is_set():
            self.heartbeat.beat()
            try:
                await self._start_due()
                await self._housekeeping()
            except Unavailable as error:
                structlog.get_logger().warning("unavailable", dependency=error.dependency)
            except Exception as error:  # noqa: BLE001 - the thread must survive any error
                structlog.get_logger().error("webhooks_failed", **log_fields(error))
            # A finished delivery frees a slot at once.
            await asyncio.wait(
                [stopped, *self._in_flight],
                timeout=self.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        stopped.cancel()
        if self._in_flight:
            await asyncio.wait(list(self._in_flight))

    async def _start_due(self) -> None:
        """Claim and start due deliveries up to the concurrency limits."""
        while len(self._in_flight) < MAX_CONCURRENT and not self._stopping.is_set():
            per_user = Counter(self._in_flight.values())
            delivery = await self._database.run(
                deliveries.claim,
                lease=self._lease,
                busy_users=[user for user, count in per_user.items() if count >= MAX_PER_USER],
                last_user_id=self._last_user_id,
            )
            if delivery is None:
                return
            self._last_user_id = delivery.user_id
            task = asyncio.create_task(self._deliver(delivery))
            self._in_flight[task] = delivery.user_id
            task.add_done_callback(self._in_flight.pop)

    async def _deliver(self, delivery: Delivery) -> None:
        outcome = await self._sender.send(delivery)
        metrics.WEBHOOK_ATTEMPTS.labels(_outcome_label(outcome)).inc()
        try:
            await self._database.run(deliveries.record_outcome, delivery, outcome)
        except Unavailable as error:
            # The lease expires and the message is sent again: at-least-once delivery.
            structlog.get_logger().warning("unavailable", dependency=error.dependency)
        except Exception as error:  # noqa: BLE001 - nothing awaits this task's result
            structlog.get_logger().error("webhooks_failed", **log_fields(error))
        # Without the URL and the response, which are private to the user.
        structlog.get_logger().info(
            "webhook_attempted",
            delivery=str(delivery.id),
            attempt=delivery.attempt,
            outcome=_outcome_label(outcome),
            status=outcome.status_code,
            ms=round(outcome.seconds * 1000),
        )

    async def _housekeeping(self) -> None:
        waiting, late = await self._database.run(deliveries.measure_due)
        metrics.WEBHOOKS_DUE.set(waiting)
        metrics.WEBHOOKS_LATE_SECONDS.set(late)
        if time.monotonic() - self._housekeeping_at > HOUSEKEEPING_SECONDS:
            await self._database.run(deliveries.delete_expired_secrets)
            self._housekeeping_at = time.monotonic()


def _outcome_label(outcome: Outcome) -> str:
    """Return the outcome's name in metrics and logs."""
    return "delivered" if outcome.delivered else outcome.error or "refused"
