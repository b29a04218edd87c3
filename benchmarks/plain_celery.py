"""The plain Celery application that `batches.py` compares with; its results are in Redis.

`celery -A plain_celery worker`; CELERY_URL is the broker. It scores with Valence's model, so that
only the transport of texts and results differs.
"""

import os

from celery import Celery

import valence_ml

app = Celery("plain", broker=os.environ["CELERY_URL"], backend=os.environ["CELERY_URL"])
app.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])
scorer = valence_ml.load(valence_ml.DEFAULT_MODEL)


@app.task
def score(texts: list[str]) -> list[tuple[str, float]]:
    """Return the label and confidence of each text."""
    return [(score.label, score.confidence) for score in scorer.score(texts)]


@app.task
def count(parts: list[list[tuple[str, float]]]) -> int:
    """Return the number of results of all parts of a chord."""
    return sum(map(len, parts))
