"""What people build with Celery alone, for `batches.py` to stand beside: results live in Redis.

`celery -A plain_celery worker`; the broker's URL is in CELERY_URL. It scores with our model, so
that only the ways of moving texts differ.
"""

import os

from celery import Celery

import valence_ml

app = Celery("plain", broker=os.environ["CELERY_URL"], backend=os.environ["CELERY_URL"])
app.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])
scorer = valence_ml.load(valence_ml.DEFAULT_MODEL)


@app.task
def score(texts: list[str]) -> list[tuple[str, float]]:
    """Labels and confidences."""
    return [(score.label, score.confidence) for score in scorer.score(texts)]


@app.task
def count(parts: list[list[tuple[str, float]]]) -> int:
    """How many results the parts of a chord have together."""
    return sum(map(len, parts))
