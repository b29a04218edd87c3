"""The Celery application, and the doorbell that wakes workers through it.

Messages carry no work: they only say that Postgres holds some, so losing a message costs nothing
but time. There is no result backend. Publishers fail fast; consumers reconnect for ever.
"""

import time
from typing import Any

import structlog
from celery import Celery, Task
from pydantic import SecretStr

from valence_common.log import log_fields

QUEUE = "valence.batches"
SCORE_TASK = "valence.batches.score"

VISIBILITY_SECONDS = 300
"""Redis delivers a message again when its worker has not acknowledged it in this time."""


class ServiceTask(Task):  # type: ignore[misc] # Celery has no types
    """The base of all tasks: acknowledged late, without a result, timed and logged.

    An error ends the task as if it had returned. Postgres holds the remaining work, and Celery
    would log the error's message, which may quote a row with a user's text.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = False
    ignore_result = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task and log its outcome."""
        started = time.perf_counter()
        try:
            return super().__call__(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - Celery must not log any message
            structlog.get_logger().error("task_failed", task=self.name, **log_fields(error))
            return None
        finally:
            structlog.get_logger().debug(
                "task", task=self.name, ms=round((time.perf_counter() - started) * 1000, 2)
            )


def make_celery(url: SecretStr) -> Celery:
    """Return a Celery application, configured for workers."""
    celery = Celery("valence", broker=url.get_secret_value(), task_cls=ServiceTask)
    celery.conf.update(
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "socket_connect_timeout": 2,
            "socket_timeout": 5,  # a shutdown must not wait for a Redis that never answers
        },
        enable_utc=True,
        result_backend=None,
        task_acks_late=True,
        task_create_missing_queues=False,
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_queues={QUEUE: {"exchange": QUEUE, "routing_key": QUEUE}},
        task_reject_on_worker_lost=False,
        task_serializer="json",
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
    )
    return celery


class Doorbell:
    """Wakes workers; never raises, and takes at most about twice `timeout` seconds."""

    def __init__(self, url: SecretStr, *, timeout: float):
        self._celery = make_celery(url)
        self._celery.conf.update(
            broker_connection_retry=False,
            broker_transport_options={
                "socket_timeout": timeout,
                "socket_connect_timeout": timeout,
                "retry_on_timeout": False,
                "max_retries": 0,
            },
            task_publish_retry=False,
        )

    def ring(self, times: int, *, max_queued: int | None = None) -> bool:
        """Wake up to `times` worker processes; return False when the broker is unavailable.

        With `max_queued`, messages that are already in the queue count towards that bound.
        """
        try:
            with self._celery.producer_or_acquire() as producer:
                if max_queued is not None:
                    queued = producer.channel.client.llen(QUEUE)
                    times = min(times, max_queued - queued)
                for _ in range(times):
                    self._celery.send_task(SCORE_TASK, queue=QUEUE, producer=producer, retry=False)
        except Exception as error:  # noqa: BLE001 - kombu raises the transport's errors
            structlog.get_logger().warning("doorbell_silent", error=type(error).__name__)
            return False
        return True
