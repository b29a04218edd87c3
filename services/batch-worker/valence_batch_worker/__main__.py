"""`python -m valence_batch_worker` runs a Celery worker; imported by nobody."""

import atexit
import os
import shutil
import tempfile

# Both are read at import time: Celery's answer to SIGTERM (a soft shutdown that gives work back),
# and the folder through which the children's metrics reach the parent.
os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):  # empty is where the process stands
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
        # Redis has no use for it, and while Redis is down a heartbeat can hold up the shutdown.
        "--without-heartbeat",
    ]
)
