"""The inference service, composed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI

from valence_common.celery_app import Doorbell
from valence_common.concurrency import ConcurrencyLimit
from valence_common.rate_limits import Limiter
from valence_common.web import app as web_app
from valence_inference import api
from valence_inference.api import service
from valence_inference.batches.notify import Ringer
from valence_inference.batches.summary import Summaries
from valence_inference.history import History
from valence_inference.live.connections import Streams
from valence_inference.live.metrics import StreamMetrics
from valence_inference.live.progress import Watching
from valence_inference.metering.api_keys import ApiKeys
from valence_inference.metering.limits import Meter
from valence_inference.metering.plans import Allowances
from valence_inference.metering.usage import Usage, WrittenTexts
from valence_inference.settings import Settings
from valence_inference.uploads.memory import Room
from valence_ml import load

DOWNLOADS, DOWNLOADS_EACH = 16, 2
"""Streams of results at once in one process, and of one user: each holds a page in memory."""


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings; its lifespan raises `ModelError` for a bad model."""
    documentation = [service.docs_router] if settings.docs_enabled else []

    @contextlib.asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        app.state.scorer = await asyncio.to_thread(load, Path(settings.model_dir))
        streams, watching, stopping = app.state.streams, app.state.watching, app.state.stopping
        async with app.state.usage.written(), watching.kept(), streams.kept(stopping):
            yield

    app = web_app.create_app(
        title="Valence inference",
        description="Sentiment of texts, one now or many soon.",
        settings=settings,
        routers=[*api.routers, service.router, *documentation],
        background=running,
    )
    doorbell = Doorbell(settings.redis_url, timeout=settings.redis_timeout_seconds)
    app.state.history = History(
        app.state.database,
        required=settings.history_required,
        store_texts=settings.store_texts,
    )
    app.state.summaries = Summaries(app.state.database)
    app.state.downloads = ConcurrencyLimit(max_total=DOWNLOADS, per_user=DOWNLOADS_EACH)
    app.state.room = Room(body_bytes=settings.batch_body_bytes)
    app.state.ringer = Ringer(doorbell, wait=settings.redis_timeout_seconds)
    _limit(app, settings)
    _stream(app, settings)
    return app


def _limit(app: FastAPI, settings: Settings) -> None:
    """Take API keys, hold users and keys to their limits, and count what they use."""
    database, revocations = app.state.database, app.state.revocations
    app.state.usage = Usage(database)
    app.state.api_keys = ApiKeys(database, revocations)
    app.state.meter = Meter(
        limiter=Limiter(app.state.cache),
        allowances=Allowances(database, revocations, settings.plans),
        api_keys=app.state.api_keys,
        usage=app.state.usage,
        written=WrittenTexts(database, revocations),
    )


def _stream(app: FastAPI, settings: Settings) -> None:
    """Keep event streams and WebSockets, within bounds."""
    app.state.message_bytes = settings.analyze_body_bytes
    app.state.stream_metrics = StreamMetrics(app.state.metrics.registry)
    app.state.streams = Streams(
        most=settings.max_streams,
        most_of_user=settings.max_user_streams,
        metrics=app.state.stream_metrics,
    )
    app.state.watching = Watching(app.state.database)
