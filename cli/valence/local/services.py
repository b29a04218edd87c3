"""The services as the launcher sees them: two web apps behind one port, and the worker's settings.

Importing this imports the services, which takes most of a start; the launcher does it while the
servers come up.
"""

import logging
import os
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from valence.local.data_dir import Home
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

# What the launcher decides itself, whatever the user's shell has for another installation.
_OURS = ("HOME", "DATABASE_URL", "REDIS_URL", "JWT_KEYRING_FILE", "HOST", "PORT", "INTERNAL_PORT")


def configure(home: Home, *, database_url: str, redis_url: str) -> dict[str, str]:
    """Set this process's environment for the web services and return the worker's.

    Secrets go into private files. LocalError names a `VALENCE_*` variable that no service knows.
    """
    for name in _OURS:
        os.environ.pop(PREFIX + name, None)
    known = _names(AuthSettings) | _names(InferenceSettings) | _names(WorkerSettings)
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise LocalError(f"{', '.join(unknown)}: no service of Valence has such a setting.")
    home.write_secrets(
        {"valence_database_url": database_url, "valence_redis_url": redis_url},
    )
    home.make_keyring(keyring.generate())
    os.environ[SECRETS_DIR] = str(home.secrets)
    os.environ.setdefault(PREFIX + "LOG_FORMAT", "console")
    for_worker = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) or name in _names(WorkerSettings)
    }
    os.environ[PREFIX + "JWT_KEYRING_FILE"] = str(home.keyring)  # the worker never holds the keys
    return for_worker | {PREFIX + "INTERNAL_PORT": "0", PREFIX + "SOFT_SHUTDOWN_SECONDS": "1.5"}


class Web:
    """Auth and inference in this process; `LocalError` when their settings are wrong."""

    def __init__(self) -> None:
        try:
            auth = load(AuthSettings, alone=False)
            inference = load(InferenceSettings, alone=False)
            log.configure("local", level=auth.log_level, style=auth.log_format)
            logging.getLogger("uvicorn.error").setLevel("WARNING")  # the banner says it better
            self._auth, self._inference = create_auth(auth), create_inference(inference)
        except (SettingsError, keyring.KeyringError) as error:
            raise LocalError(f"Valence cannot start: {error}.") from None
        self._app = Router(self._auth, self._inference, PREFIXES)
        self._internal = Starlette(
            routes=[
                Mount("/auth", _internal(self._auth)),
                Mount("/inference", _internal(self._inference)),
            ]
        )

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """What must be open while they are served."""
        return lifespans(self._auth, self._inference)

    async def serve(
        self,
        public: socket.socket,
        *,
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
        drain_seconds: int,
        on_started: Callable[[], None],
    ) -> None:
        """Answer on the public port until SIGTERM or SIGINT, then drain."""
        await server.serve(
            self._app,
            self._internal,
            lifespan=lifespan,
            public_socket=public,
            internal_socket=server.bind("127.0.0.1", 0),
            drain_seconds=drain_seconds,
            message_bytes=resources(self._inference).message_bytes,
            on_started=on_started,
            on_stopping=self._tell_stopping,
        )

    def _tell_stopping(self) -> None:
        for app in (self._auth, self._inference):
            resources(app).stopping.set()


def _internal(app: FastAPI) -> Starlette:
    held = resources(app)
    return internal_app(
        held.health, render=held.metrics.render, dependency_up=held.metrics.dependency_up
    )


def _names(settings: type[AuthSettings | InferenceSettings | WorkerSettings]) -> set[str]:
    return {PREFIX + name.upper() for name in settings.model_fields} | {SECRETS_DIR}
