"""The application of the inference service."""

from fastapi import FastAPI

from valence_common.web import app as web_app
from valence_inference import api
from valence_inference.api import service
from valence_inference.resources import InferenceResources
from valence_inference.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Return the application; its lifespan raises `ModelError` for a bad model."""
    resources = InferenceResources(settings)
    documentation = [service.docs_router] if settings.docs_enabled else []
    return web_app.create_app(
        resources,
        title="Valence inference",
        description="Sentiment analysis of single texts and of batches.",
        routers=[*api.routers, service.router, *documentation],
        background=resources.background,
    )
