"""The inference service, composed."""

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
        description="Sentiment of texts, one now or many soon.",
        routers=[*api.routers, service.router, *documentation],
        background=resources.background,
    )
