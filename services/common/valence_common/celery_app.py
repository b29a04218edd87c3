"""The doorbell: Celery over Redis, told so that losing a message loses nothing but time.

Messages carry no work, only the news that there is some; Postgres knows what it is. There is no
result backend. Publishers give up in a moment; consumers wait long.
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
"""A message that a worker took and never acknowledged comes back after this time."""


class ServiceTask(Task):  # type: ignore[misc] # Celery has no types
    """The one base of tasks: acknowledged late, no result, timed and logged.

    An error ends the task as if it had returned: Postgres knows what is left to do, and Celery
    would log what the error says, which may be a row with a user's text.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = False
    ignore_result = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task's envelope and log how it went."""
        started = time.perf_counter()
        try:
            return super().__call__(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it was, Celery must not log its text
            structlog.get_logger().error("task_failed", task=self.name, **log_fields(error))
            return None
        finally:
            structlog.get_logger().debug(
                "task", task=self.name, ms=round((time.perf_counter() - started) * 1000, 2)
            )


def make_celery(url: SecretStr) -> Celery:
    """A Celery application as workers need it."""
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
    """Rings for workers; never raises, never takes longer than about twice `timeout` seconds."""

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
        """Tell that there is work, to up to `times` worker processes; False if nobody heard.

        With `max_queued`, rings that wait in the queue already count towards that bound.
        """
        try:
            with self._celery.producer_or_acquire() as producer:
                if max_queued is not None:
                    queued = producer.channel.client.llen(QUEUE)
                    times = min(times, max_queued - queued)
                for _ in range(times):
                    self._celery.send_task(SCORE_TASK, queue=QUEUE, producer=producer, retry=False)
        except Exception as error:  # noqa: BLE001 - kombu raises its transports' own errors
            structlog.get_logger().warning("doorbell_silent", error=type(error).__name__)
            return False
        return True
