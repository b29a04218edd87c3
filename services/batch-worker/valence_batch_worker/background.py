"""The background threads of the worker's parent process: periodic jobs and the internal port."""

import asyncio
import threading
from functools import partial

from valence_batch_worker import metrics
from valence_batch_worker.batches.sweeper import Sweeper
from valence_batch_worker.cleanup import erasure
from valence_batch_worker.cleanup.retention import Retention
from valence_batch_worker.liveness import POLL_SECONDS, Liveness
from valence_batch_worker.outbox_relay import OutboxRelay
from valence_batch_worker.periodic import PeriodicThread
from valence_batch_worker.settings import Settings
from valence_batch_worker.webhooks.dispatcher import Dispatcher
from valence_common.celery_app import QUEUE, Doorbell
from valence_common.db import Database
from valence_common.health import Health, internal_app
from valence_common.problems import Unavailable
from valence_common.redis_client import RedisClient, blocking_client
from valence_common.web import server

DATABASE_TIMEOUT_SECONDS = 10
RELAY_TIMEOUT_SECONDS = 2  # no request waits, and one command carries hundreds of events


class BackgroundThreads:
    """Threads that live as long as the worker; raises `ServeError` if the port is in use."""

    def __init__(self, settings: Settings, doorbell: Doorbell, liveness: Liveness):
        self._settings = settings
        self._liveness = liveness
        self._socket = server.bind(settings.internal_host, settings.internal_port)
        # No pool: this process forks children at any time, and they must not share connections.
        database = Database(
            settings.database_url, pool_size=1, timeout=DATABASE_TIMEOUT_SECONDS, pooled=False
        )
        client = blocking_client(settings.redis_url, timeout=RELAY_TIMEOUT_SECONDS)
        relay = OutboxRelay(database, client)
        self._dispatcher = Dispatcher(settings, database) if settings.webhooks_enabled else None
        self._threads: list[PeriodicThread | Dispatcher] = [
            PeriodicThread(name, seconds, work)
            for name, seconds, work in (
                ("sweep", settings.sweep_seconds, Sweeper(settings, database, doorbell).sweep),
                ("erasure", settings.sweep_seconds, partial(erasure.erase, database)),
                (
                    "retention",
                    settings.sweep_seconds,
                    Retention(settings, database, relay.last_published).work,
                ),
                ("relay", settings.relay_seconds, relay.work),
            )
        ]
        if self._dispatcher is not None:
            self._threads.append(self._dispatcher)
        liveness.threads.update(
            {thread.name: (thread.heartbeat, thread.seconds) for thread in self._threads}
        )
        self._internal_server = threading.Thread(target=self._serve, name="internal", daemon=True)

    def start(self) -> None:
        """Start all threads."""
        for thread in (self._internal_server, *self._threads):
            thread.start()

    def stop(self) -> None:
        """Stop the periodic threads; the internal port answers probes until the process ends."""
        self._liveness.stop()
        for thread in self._threads:
            thread.stop()

    def join(self) -> None:
        """Wait for webhooks in flight: an interrupted one would be sent again."""
        if self._dispatcher is not None and self._dispatcher.is_alive():
            self._dispatcher.join(self._settings.webhook_timeout_seconds)

    def _serve(self) -> None:
        asyncio.run(self._serve_internal())

    async def _serve_internal(self) -> None:
        settings = self._settings
        redis = RedisClient(settings.redis_url, timeout=settings.redis_timeout_seconds)
        database = Database(
            settings.database_url,
            pool_size=1,
            timeout=settings.database_timeout_seconds,
            pooled=False,
        )
        health = Health({"postgres": database.ping, "redis": redis.ping})
        app = internal_app(
            health,
            render=metrics.render,
            dependency_up=metrics.DEPENDENCY_UP,
            stuck=self._liveness.stuck,
        )
        tasks = [
            asyncio.create_task(health.become_ready()),
            asyncio.create_task(self._poll_queue(redis)),
        ]
        await server.serve_internal(app, self._socket)
        await asyncio.gather(*tasks)

    async def _poll_queue(self, redis: RedisClient) -> None:
        while True:
            try:
                queued: int | None = await redis.execute(redis.client.llen(QUEUE))
            except Unavailable:
                queued = None
            self._liveness.record_poll(queued)
            await asyncio.sleep(POLL_SECONDS)
