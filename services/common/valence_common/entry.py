"""How a service's process starts: settings, logs, ports; what stops it is one sentence."""

import asyncio
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from fastapi import FastAPI

from valence_common import log, server
from valence_common.health import internal_app
from valence_common.keyring import KeyringError
from valence_common.settings import SettingsError, WebSettings, load

S = TypeVar("S", bound=WebSettings)

CONFIGURATION = 78  # EX_CONFIG of sysexits.h


def stop(service: str, error: Exception) -> NoReturn:
    """End the process with one sentence for its operator."""
    sys.stderr.write(f"valence {service}: {error}\n")
    raise SystemExit(CONFIGURATION)


def run_web(
    service: str,
    settings_class: type[S],
    create_app: Callable[[S], FastAPI],
    *,
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Serve one web service until it is told to stop; `fatal` are start-up's own errors."""
    try:
        settings = load(settings_class)
        log.configure(service, level=settings.log_level, style=settings.log_format)
        app = create_app(settings)
        public_socket = server.bind(settings.host, settings.port)
        internal_socket = server.bind(settings.internal_host, settings.internal_port)
    except KeyringError as error:
        stop(service, KeyringError(f"VALENCE_JWT_KEYRING_FILE: {error}"))
    except (SettingsError, server.ServeError) as error:
        stop(service, error)
    metrics = app.state.metrics
    internal = internal_app(
        app.state.health, render=metrics.render, dependency_up=metrics.dependency_up
    )
    try:
        asyncio.run(
            server.serve(
                app,
                internal,
                lifespan=lambda: app.router.lifespan_context(app),
                public_socket=public_socket,
                internal_socket=internal_socket,
                drain_seconds=settings.drain_seconds,
                message_bytes=app.state.message_bytes,
                on_stopping=app.state.stopping.set,
            )
        )
    except fatal as error:
        stop(service, error)
