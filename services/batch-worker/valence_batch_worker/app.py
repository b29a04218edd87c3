"""The worker's Celery application: the task, the child processes and the parent's threads.

The parent loads the model before it forks, so children share its memory. Each child creates its
database engine after the fork, because processes must not share connections.
"""

import logging
from typing import Any

import structlog
from celery import Celery, bootsteps, signals
from prometheus_client import multiprocess

from valence_batch_worker.background import BackgroundThreads
from valence_batch_worker.batches.worker import TIME_SLICE_SECONDS, Worker
from valence_batch_worker.liveness import TICK_SECONDS, Liveness
from valence_batch_worker.settings import Settings
from valence_common.celery_app import SCORE_TASK, Doorbell, make_celery
from valence_common.db import Database
from valence_ml import Scorer, model_name


def create_app(settings: Settings, scorer: Scorer) -> Celery:
    """Return the Celery application for these settings; it starts nothing by itself."""
    app = make_celery(settings.redis_url)
    # Celery kills and replaces a child that hangs, long after its lease has expired.
    time_limit = TIME_SLICE_SECONDS + 2 * settings.lease_seconds
    app.conf.update(
        task_time_limit=time_limit,
        worker_concurrency=settings.concurrency or None,
        worker_enable_soft_shutdown_on_idle=False,
        worker_soft_shutdown_timeout=settings.soft_shutdown_seconds,
    )
    doorbell = Doorbell(settings.redis_url, timeout=settings.redis_timeout_seconds)
    state: dict[str, Worker] = {}  # one worker in each child, set after the fork

    @app.task(name=SCORE_TASK)  # type: ignore[untyped-decorator] # Celery has no types
    def score() -> None:
        """Process chunks for one time slice; ring the doorbell if more may wait."""
        liveness.tasks.beat()
        if state["worker"].run_time_slice():
            doorbell.ring(1)
        liveness.tasks.beat()

    def open_child(**_: Any) -> None:
        database = Database(settings.database_url, pool_size=1, timeout=settings.lease_seconds)
        state["worker"] = Worker(settings, database, scorer)

    def close_child(pid: int, **_: Any) -> None:
        state["worker"].database.close()
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]

    liveness = Liveness(task_time_limit=time_limit)
    background = BackgroundThreads(settings, doorbell, liveness)

    class StartBackground(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
        """Start the background threads after the fork, before Celery waits for Redis."""

        requires = frozenset({"celery.worker.components:Pool"})

        def start(self, _: Any) -> None:
            """Start the threads; Celery calls this once."""
            background.start()
            structlog.get_logger().info("working", model=model_name(scorer))

    class ConsumerHeartbeat(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
        """Beat the consumer's heartbeat from Celery's event loop, per connection."""

        requires = frozenset({"celery.worker.consumer.tasks:Tasks"})
        _entry: Any = None

        def start(self, consumer: Any) -> None:
            """Start beating; Celery calls this after each connect."""
            liveness.consumer.beat()
            self._entry = consumer.hub.call_repeatedly(TICK_SECONDS, liveness.consumer.beat)

        def stop(self, _: Any) -> None:
            """Stop beating; Celery calls this on a lost connection and at shutdown."""
            if self._entry is not None:
                self._entry.cancel()

    def stop_background(**_: Any) -> None:
        background.stop()

    def join_background(**_: Any) -> None:
        background.join()

    def keep_logging(**_: Any) -> None:
        """Keep our logging configuration; Celery replaces it if this signal has no receiver."""
        for name in ("celery.app.trace", "celery.worker.strategy"):  # each logs every message
            logging.getLogger(name).setLevel("WARNING")

    app.steps["worker"].add(StartBackground)
    app.steps["consumer"].add(ConsumerHeartbeat)
    signals.setup_logging.connect(keep_logging, weak=False)
    signals.worker_process_init.connect(open_child, weak=False)
    signals.worker_process_shutdown.connect(close_child, weak=False)
    signals.worker_shutting_down.connect(stop_background, weak=False)
    signals.worker_shutdown.connect(join_background, weak=False)
    return app
