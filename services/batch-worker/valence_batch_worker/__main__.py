"""Entry point: `python -m valence_batch_worker` runs a Celery worker. Not for import."""

import atexit
import os
import shutil
import tempfile

# Libraries read both at import time. REMAP_SIGTERM makes SIGTERM a soft shutdown, which requeues
# unfinished work. Child processes share their metrics with the parent through the folder.
os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):  # empty would be the current folder
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="valence-metrics-")
    atexit.register(shutil.rmtree, os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)

from valence_batch_worker.app import create_app
from valence_batch_worker.settings import Settings
from valence_common import log
from valence_common.celery_app import QUEUE
from valence_common.settings import SettingsError, load
from valence_common.web.process import exit_with_error
from valence_common.web.server import ServeError
from valence_ml import ModelError
from valence_ml import load as load_model

SERVICE = "batch-worker"

try:
    settings = load(Settings)
    log.configure(SERVICE, level=settings.log_level, style=settings.log_format)
    app = create_app(settings, load_model(settings.model_dir))
except (SettingsError, ModelError, ServeError) as error:
    exit_with_error(SERVICE, error)

app.worker_main(
    [
        "--quiet",
        "worker",
        "--pool=prefork",
        f"--queues={QUEUE}",
        "--without-gossip",
        "--without-mingle",
        # Redis does not use it, and a heartbeat can delay the shutdown while Redis is down.
        "--without-heartbeat",
    ]
)
