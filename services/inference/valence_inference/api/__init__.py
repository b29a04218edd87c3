"""The inference service's routes: each takes, asks the noun, answers."""

from valence_inference.api import (
    analyses,
    batches,
    events,
    history,
    models,
    results,
    stream,
    submissions,
    webhooks,
)

routers = [
    analyses.router,
    submissions.router,
    batches.router,
    results.router,
    events.router,
    stream.router,
    history.router,
    models.router,
    webhooks.router,
]
