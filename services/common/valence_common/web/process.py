"""The start of a web service's process: settings, logs, ports; errors are one sentence."""

import asyncio
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from fastapi import FastAPI

from valence_common import log
from valence_common.health import internal_app
from valence_common.keyring import KeyringError
from valence_common.settings import SettingsError, WebSettings, load
from valence_common.web import server
from valence_common.web.state import resources

S = TypeVar("S", bound=WebSettings)

EX_CONFIG = 78  # sysexits.h


def exit_with_error(service: str, error: Exception) -> NoReturn:
    """End the process with one sentence on stderr and exit code 78."""
    sys.stderr.write(f"valence {service}: {error}\n")
    raise SystemExit(EX_CONFIG)


def run_web(
    service: str,
    settings_class: type[S],
    create_app: Callable[[S], FastAPI],
    *,
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Serve one web service until SIGTERM; `fatal` errors of start-up end it in one sentence."""
    try:
        settings = load(settings_class)
        log.configure(service, level=settings.log_level, style=settings.log_format)
        app = create_app(settings)
        public_socket = server.bind(settings.host, settings.port)
        internal_socket = server.bind(settings.internal_host, settings.internal_port)
    except KeyringError as error:
        exit_with_error(service, KeyringError(f"VALENCE_JWT_KEYRING_FILE: {error}"))
    except (SettingsError, server.ServeError) as error:
        exit_with_error(service, error)
    held = resources(app)
    internal = internal_app(
        held.health, render=held.metrics.render, dependency_up=held.metrics.dependency_up
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
                message_bytes=held.message_bytes,
                on_stopping=held.stopping.set,
            )
        )
    except fatal as error:
        exit_with_error(service, error)
