"""`python -m valence_inference` serves the inference service; no module imports this one."""

from valence_common.web.process import run_web
from valence_inference.app import create_app
from valence_inference.settings import Settings
from valence_ml import ModelError

run_web("inference", Settings, create_app, fatal=(ModelError,))
