"""The inference service, composed."""

import asyncio
from pathlib import Path

from fastapi import FastAPI

from valence_common import web
from valence_common.queue import Doorbell
from valence_inference import api, public
from valence_inference.doorbell import Ringer
from valence_inference.history import History
from valence_inference.settings import Settings
from valence_ml import load


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings; its lifespan raises `ModelError` for a bad model."""
    documentation = [public.docs_router] if settings.docs_enabled else []

    async def startup(app: FastAPI) -> None:
        app.state.scorer = await asyncio.to_thread(load, Path(settings.model_dir))

    app = web.create_app(
        title="Valence inference",
        description="Sentiment of texts, one now or many soon.",
        settings=settings,
        routers=[api.analyze_router, api.batch_router, public.router, *documentation],
        startup=startup,
    )
    doorbell = Doorbell(settings.redis_url, timeout=settings.redis_timeout_seconds)
    app.state.history = History(app.state.database, required=settings.history_required)
    app.state.ringer = Ringer(doorbell, wait=settings.redis_timeout_seconds)
    return app
