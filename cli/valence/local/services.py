"""Both web services behind one port, and the environment of the worker.

Importing this module imports the services, which takes most of the start-up time; the launcher
imports it while Postgres and Valkey start.
"""

import logging
import os
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from valence.local.data_dir import DataDir
from valence.local.errors import LocalError
from valence.local.router import Router, lifespans
from valence_auth.app import PREFIXES
from valence_auth.app import create_app as create_auth
from valence_auth.settings import Settings as AuthSettings
from valence_batch_worker.settings import Settings as WorkerSettings
from valence_common import keyring, log
from valence_common.health import internal_app
from valence_common.settings import PREFIX, SECRETS_DIR, SettingsError, load
from valence_common.web import server
from valence_common.web.state import resources
from valence_inference.app import create_app as create_inference
from valence_inference.settings import Settings as InferenceSettings

# Set by the launcher, whatever the user's shell exports for another installation.
_MANAGED = (
    "HOME",
    "DATABASE_URL",
    "REDIS_URL",
    "JWT_KEYRING_FILE",
    "HOST",
    "PORT",
    "INTERNAL_PORT",
)


def configure(data_dir: DataDir, *, database_url: str, redis_url: str) -> dict[str, str]:
    """Set this process's environment for the web services, and return the worker's.

    Secrets are written to private files. Raise LocalError for an unknown `VALENCE_*` variable.
    """
    for name in _MANAGED:
        os.environ.pop(PREFIX + name, None)
    known = (
        _setting_names(AuthSettings)
        | _setting_names(InferenceSettings)
        | _setting_names(WorkerSettings)
    )
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise LocalError(f"{', '.join(unknown)}: no service of Valence has such a setting.")
    data_dir.write_secrets(
        {"valence_database_url": database_url, "valence_redis_url": redis_url},
    )
    data_dir.create_keyring(keyring.generate())
    os.environ[SECRETS_DIR] = str(data_dir.secrets)
    os.environ.setdefault(PREFIX + "LOG_FORMAT", "console")
    worker_env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) or name in _setting_names(WorkerSettings)
    }
    # Set after the copy: the worker never gets the signing keys.
    os.environ[PREFIX + "JWT_KEYRING_FILE"] = str(data_dir.keyring)
    return worker_env | {PREFIX + "INTERNAL_PORT": "0", PREFIX + "SOFT_SHUTDOWN_SECONDS": "1.5"}


class WebServices:
    """Auth and inference in this process; raises LocalError if their settings are invalid."""

    def __init__(self) -> None:
        try:
            auth = load(AuthSettings, alone=False)
            inference = load(InferenceSettings, alone=False)
            log.configure("local", level=auth.log_level, style=auth.log_format)
            logging.getLogger("uvicorn.error").setLevel("WARNING")  # the banner replaces its output
            self._auth, self._inference = create_auth(auth), create_inference(inference)
        except (SettingsError, keyring.KeyringError) as error:
            raise LocalError(f"Valence cannot start: {error}.") from None
        self._app = Router(self._auth, self._inference, PREFIXES)
        self._internal = Starlette(
            routes=[
                Mount("/auth", _internal_routes(self._auth)),
                Mount("/inference", _internal_routes(self._inference)),
            ]
        )

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Return the lifespan of both services."""
        return lifespans(self._auth, self._inference)

    async def serve(
        self,
        public: socket.socket,
        *,
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
        drain_seconds: int,
        on_started: Callable[[], None],
    ) -> None:
        """Serve on the public port until SIGTERM or SIGINT, then drain."""
        await server.serve(
            self._app,
            self._internal,
            lifespan=lifespan,
            public_socket=public,
            internal_socket=server.bind("127.0.0.1", 0),
            drain_seconds=drain_seconds,
            message_bytes=resources(self._inference).message_bytes,
            on_started=on_started,
            on_stopping=self._announce_stop,
        )

    def _announce_stop(self) -> None:
        for app in (self._auth, self._inference):
            resources(app).stopping.set()


def _internal_routes(app: FastAPI) -> Starlette:
    state = resources(app)
    return internal_app(
        state.health, render=state.metrics.render, dependency_up=state.metrics.dependency_up
    )


def _setting_names(settings: type[AuthSettings | InferenceSettings | WorkerSettings]) -> set[str]:
    return {PREFIX + name.upper() for name in settings.model_fields} | {SECRETS_DIR}
