"""The courier: a thread of the worker's parent that delivers what is due, many at once."""

import asyncio
import threading
import time
import uuid
from collections import Counter
from datetime import timedelta
from typing import Final

import structlog

from valence_batch_worker import metrics
from valence_batch_worker.liveness import Pulse
from valence_batch_worker.settings import Settings
from valence_batch_worker.webhooks import deliveries
from valence_batch_worker.webhooks.deliveries import Delivery, Outcome
from valence_batch_worker.webhooks.sender import Sender
from valence_common.db import Database
from valence_common.log import log_fields
from valence_common.problems import Unavailable

AT_ONCE: Final = 16
OF_ONE_USER: Final = 4
"""So that a receiver that hangs leaves room for the others'."""

SPARE_SECONDS: Final = 30.0
"""What a lease has beyond the attempt, for writing down how it went."""

HOUSEKEEPING_SECONDS: Final = 60.0


class Courier(threading.Thread):
    """Claims, sends and settles until it is stopped; any number of them may run.

    `pulse` is beaten at each look for what is due, of which there is one in `seconds` at least.
    """

    def __init__(self, settings: Settings, database: Database, sender: Sender | None = None):
        super().__init__(name="webhooks", daemon=True)
        self._database = database
        self.seconds = settings.sweep_seconds
        self.pulse = Pulse()
        self._lease = timedelta(seconds=settings.webhook_timeout_seconds + SPARE_SECONDS)
        self._sender = sender or Sender(
            seconds=settings.webhook_timeout_seconds,
            allow_http=settings.webhooks_allow_http,
            allowed=settings.webhooks_allowed_networks,
        )
        self._stopping = threading.Event()
        self._woken: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Anywhere, as the workers that claim chunks: they would go around side by side.
        self._after = uuid.uuid4()
        self._under_way: dict[asyncio.Task[None], uuid.UUID] = {}
        self._kept_house_at = float("-inf")

    def run(self) -> None:
        """Work until stopped, then until what is under way has been sent and written down."""
        asyncio.run(self._run())

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()
        if self._loop is not None and self._woken is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    async def _run(self) -> None:
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        stopped = asyncio.create_task(self._woken.wait())
        while not self._stopping.is_set():
            self.pulse.beat()
            try:
                await self._begin()
                await self._keep_house()
            except Unavailable as error:
                structlog.get_logger().warning("unavailable", dependency=error.dependency)
            except Exception as error:  # noqa: BLE001 - the next look must come whatever happens
                structlog.get_logger().error("webhooks_failed", **log_fields(error))
            # Whoever ends makes room for another at once.
            await asyncio.wait(
                [stopped, *self._under_way],
                timeout=self.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        stopped.cancel()
        if self._under_way:
            await asyncio.wait(list(self._under_way))

    async def _begin(self) -> None:
        """Claim and start what there is room for."""
        while len(self._under_way) < AT_ONCE and not self._stopping.is_set():
            each = Counter(self._under_way.values())
            mine = await self._database.run(
                deliveries.claim,
                lease=self._lease,
                busy=[user for user, count in each.items() if count >= OF_ONE_USER],
                after=self._after,
            )
            if mine is None:
                return
            self._after = mine.user_id
            task = asyncio.create_task(self._deliver(mine))
            self._under_way[task] = mine.user_id
            task.add_done_callback(self._under_way.pop)

    async def _deliver(self, mine: Delivery) -> None:
        outcome = await self._sender.send(mine)
        metrics.WEBHOOK_ATTEMPTS.labels(_name(outcome)).inc()
        try:
            await self._database.run(deliveries.settle, mine, outcome)
        except Unavailable as error:
            # The lease runs out and it is delivered again: at least once.
            structlog.get_logger().warning("unavailable", dependency=error.dependency)
        except Exception as error:  # noqa: BLE001 - as above, and nobody else would hear of it
            structlog.get_logger().error("webhooks_failed", **log_fields(error))
        # Neither the URL nor a word of the answer: both are users' own.
        structlog.get_logger().info(
            "webhook_attempted",
            delivery=str(mine.id),
            attempt=mine.attempt,
            outcome=_name(outcome),
            status=outcome.status_code,
            ms=round(outcome.seconds * 1000),
        )

    async def _keep_house(self) -> None:
        waiting, late = await self._database.run(deliveries.due)
        metrics.WEBHOOKS_DUE.set(waiting)
        metrics.WEBHOOKS_LATE.set(late)
        if time.monotonic() - self._kept_house_at > HOUSEKEEPING_SECONDS:
            await self._database.run(deliveries.forget_secrets)
            self._kept_house_at = time.monotonic()


def _name(outcome: Outcome) -> str:
    """What metrics and logs call it."""
    return "delivered" if outcome.delivered else outcome.error or "refused"
