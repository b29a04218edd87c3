"""The worker with little patience for its own parts, and one that gets stuck when told to.

`STUCK_FILE` names a file: once it is there, Celery's event loop is given something that never ends.
"""

import os
import runpy
import time
from pathlib import Path
from typing import Any

from celery import bootsteps

from valence_batch_worker import app, liveness

CONSUMER_SECONDS = 4.0


class GetStuck(bootsteps.StartStopStep):
    """Looks for the file from within Celery's event loop."""

    requires = frozenset({"celery.worker.consumer.tasks:Tasks"})

    def start(self, consumer: Any) -> None:
        consumer.hub.call_repeatedly(0.2, self.look)

    def look(self) -> None:
        while Path(os.environ["STUCK_FILE"]).exists():
            time.sleep(0.1)


create_app = app.create_app


def create_nervous_app(*arguments: Any) -> Any:
    celery = create_app(*arguments)
    celery.steps["consumer"].add(GetStuck)
    return celery


if __name__ == "__main__":
    liveness.CONSUMER_TIMEOUT_SECONDS = CONSUMER_SECONDS
    app.TICK_SECONDS = 0.2
    app.create_app = create_nervous_app
    runpy.run_module("valence_batch_worker", run_name="__main__")
