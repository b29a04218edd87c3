"""The inference service's routes: each takes, asks the noun, answers."""

from valence_inference.api import analyses, batches, history, models, webhooks

routers = [analyses.router, batches.router, history.router, models.router, webhooks.router]
