"""The worker over a Redis that gives messages to somebody else after a second of silence."""

import runpy

from valence_common import celery_app

if __name__ == "__main__":
    celery_app.VISIBILITY_SECONDS = 1
    runpy.run_module("valence_batch_worker", run_name="__main__")
