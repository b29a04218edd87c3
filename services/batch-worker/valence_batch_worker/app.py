"""The worker's Celery application, composed: what the parent runs, what each child holds, the task.

The parent loads the model before it forks, so that children share its memory; engines are made
after the fork, for connections must not be shared.
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
    """The Celery application for these settings; its processes begin when Celery starts them."""
    app = make_celery(settings.redis_url)
    # A child that hangs is ended once its lease has long run out, and replaced.
    time_limit = TIME_SLICE_SECONDS + 2 * settings.lease_seconds
    app.conf.update(
        task_time_limit=time_limit,
        worker_concurrency=settings.concurrency or None,
        worker_enable_soft_shutdown_on_idle=False,
        worker_soft_shutdown_timeout=settings.soft_shutdown_seconds,
    )
    doorbell = Doorbell(settings.redis_url, timeout=settings.redis_timeout_seconds)
    process: dict[str, Worker] = {}

    @app.task(name=SCORE_TASK)  # type: ignore[untyped-decorator] # Celery has no types
    def score() -> None:
        """Work on chunks for a turn; ring again if there may be more."""
        liveness.tasks.beat()
        if process["worker"].run_time_slice():
            doorbell.ring(1)
        liveness.tasks.beat()

    def open_child(**_: Any) -> None:
        database = Database(settings.database_url, pool_size=1, timeout=settings.lease_seconds)
        process["worker"] = Worker(settings, database, scorer)

    def close_child(pid: int, **_: Any) -> None:
        process["worker"].database.close()
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]

    liveness = Liveness(task_time_limit=time_limit)
    parent = BackgroundThreads(settings, doorbell, liveness)

    class OpenParent(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
        """After the fork, and before Celery waits for Redis: probes are answered meanwhile."""

        requires = frozenset({"celery.worker.components:Pool"})

        def start(self, _: Any) -> None:
            """Called by Celery, once."""
            parent.start()
            structlog.get_logger().info("working", model=model_name(scorer))

    class Tick(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
        """While Celery's event loop turns, the consumer's pulse beats; anew for each connection."""

        requires = frozenset({"celery.worker.consumer.tasks:Tasks"})
        _entry: Any = None

        def start(self, consumer: Any) -> None:
            """Called by Celery whenever it has connected."""
            liveness.consumer.beat()
            self._entry = consumer.hub.call_repeatedly(TICK_SECONDS, liveness.consumer.beat)

        def stop(self, _: Any) -> None:
            """Called by Celery when the connection is lost, and at the end."""
            if self._entry is not None:
                self._entry.cancel()

    def close_parent(**_: Any) -> None:
        parent.stop()

    def leave_parent(**_: Any) -> None:
        parent.join()

    def keep_logging(**_: Any) -> None:
        """Celery leaves logging as it is, with our level, when somebody listens to this."""
        for chatty in ("celery.app.trace", "celery.worker.strategy"):  # two lines a message
            logging.getLogger(chatty).setLevel("WARNING")

    app.steps["worker"].add(OpenParent)
    app.steps["consumer"].add(Tick)
    signals.setup_logging.connect(keep_logging, weak=False)
    signals.worker_process_init.connect(open_child, weak=False)
    signals.worker_process_shutdown.connect(close_child, weak=False)
    signals.worker_shutting_down.connect(close_parent, weak=False)
    signals.worker_shutdown.connect(leave_parent, weak=False)
    return app
