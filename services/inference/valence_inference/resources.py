"""The resources of the inference service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from valence_common.celery_app import Doorbell
from valence_common.concurrency import ConcurrencyLimit
from valence_common.rate_limits import Limiter
from valence_common.web.state import Resources
from valence_inference.batches.notify import AsyncDoorbell
from valence_inference.batches.summary import Summaries
from valence_inference.history import History
from valence_inference.live.connections import ConnectionRegistry
from valence_inference.live.metrics import ConnectionMetrics
from valence_inference.live.progress import ProgressFeed
from valence_inference.metering.api_keys import ApiKeyVerifier
from valence_inference.metering.limits import RequestLimiter
from valence_inference.metering.plans import UserPlans
from valence_inference.metering.usage import TextsToday, Usage
from valence_inference.settings import MAX_BODY_BYTES, Settings
from valence_inference.uploads.memory import UploadMemory
from valence_ml import Scorer, load

MAX_DOWNLOADS, MAX_USER_DOWNLOADS = 16, 2
"""Concurrent downloads of results in one process, and of one user: each holds a page in memory."""


class InferenceResources(Resources):
    """The resources of the inference service; `scorer` is set while `background` is entered."""

    settings: Settings
    scorer: Scorer
    api_keys: ApiKeyVerifier
    meter: RequestLimiter

    def __init__(self, settings: Settings):
        super().__init__(settings)
        doorbell = Doorbell(settings.redis_url, timeout=settings.redis_timeout_seconds)
        self.doorbell = AsyncDoorbell(doorbell, timeout=settings.redis_timeout_seconds)
        self.history = History(
            self.database, required=settings.history_required, store_texts=settings.store_texts
        )
        self.summaries = Summaries(self.database)
        self.download_limit = ConcurrencyLimit(max_total=MAX_DOWNLOADS, per_user=MAX_USER_DOWNLOADS)
        self.upload_memory = UploadMemory(body_bytes=settings.batch_body_bytes)
        self.usage = Usage(self.database)
        self.api_keys = ApiKeyVerifier(self.database, self.revocations)
        self.meter = RequestLimiter(
            limiter=Limiter(self.redis),
            plans=UserPlans(self.database, self.revocations, settings.plans),
            api_keys=self.api_keys,
            usage=self.usage,
            texts_today=TextsToday(self.database, self.revocations),
        )
        self.message_bytes = MAX_BODY_BYTES
        self.connection_metrics = ConnectionMetrics(self.metrics.registry)
        self.connections = ConnectionRegistry(
            max_total=settings.max_streams,
            per_user=settings.max_user_streams,
            metrics=self.connection_metrics,
        )
        self.progress_feed = ProgressFeed(self.database)

    @contextlib.asynccontextmanager
    async def background(self) -> AsyncIterator[None]:
        """Load the model and run the background tasks; raise `ModelError` for a bad model."""
        self.scorer = await asyncio.to_thread(load, Path(self.settings.model_dir))
        async with (
            self.usage.lifespan(),
            self.progress_feed.lifespan(),
            self.connections.lifespan(self.stopping),
        ):
            yield
