"""The auth service, composed."""

from fastapi import FastAPI

from valence_auth import api
from valence_auth.data_export import AT_ONCE
from valence_auth.oidc.provider import Client, Provider
from valence_auth.passwords import Passwords
from valence_auth.settings import Settings
from valence_common.concurrency import ConcurrencyLimit
from valence_common.rate_limits import Limiter
from valence_common.web import app as web_app

PREFIXES = tuple(f"{web_app.API}/{name}" for name in ("auth", "users", "api-keys", "admin"))
"""The paths that the ingress, and the local launcher, send to this service."""


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings; raises `KeyringError` for keys not to be used."""
    app = web_app.create_app(
        title="Valence auth",
        description="Accounts and login.",
        settings=settings,
        routers=api.routers,
    )
    app.state.passwords = Passwords(settings.password_hashers)
    app.state.limiter = Limiter(app.state.cache)
    app.state.takeouts = ConcurrencyLimit(max_total=AT_ONCE)
    client = Client.of(settings)
    app.state.oidc = None if client is None else Provider(client)
    return app
