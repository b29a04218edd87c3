"""The routes of the inference service: parse the request, call a noun, format the answer."""

from valence_inference.api import (
    analyses,
    batches,
    history,
    models,
    results,
    sse,
    submissions,
    webhooks,
    websocket,
)

routers = [
    analyses.router,
    submissions.router,
    batches.router,
    results.router,
    sse.router,
    websocket.router,
    history.router,
    models.router,
    webhooks.router,
]
