"""The inference service's routes: each takes, asks the noun, answers."""

from valence_inference.api import analyses, batches, events, history, models, stream

routers = [
    analyses.router,
    batches.router,
    events.router,
    stream.router,
    history.router,
    models.router,
]
