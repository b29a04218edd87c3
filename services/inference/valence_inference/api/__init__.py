"""The inference service's routes: each takes, asks the noun, answers."""

from valence_inference.api import analyses, batches, history, models, results, submissions

routers = [
    analyses.router,
    submissions.router,
    batches.router,
    results.router,
    history.router,
    models.router,
]
