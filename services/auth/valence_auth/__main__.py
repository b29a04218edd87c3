"""`python -m valence_auth` serves the auth service; no module imports this one."""

from valence_auth.app import create_app
from valence_auth.settings import Settings
from valence_common.web.process import run_web

run_web("auth", Settings, create_app)
