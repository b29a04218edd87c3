"""The application of the auth service."""

from fastapi import FastAPI

from valence_auth import api
from valence_auth.resources import AuthResources
from valence_auth.settings import Settings
from valence_common.web import app as web_app

PREFIXES = tuple(f"{web_app.API}/{name}" for name in ("auth", "users", "api-keys", "admin"))
"""The paths that the ingress, and the local launcher, route to this service."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; raise `KeyringError` for signing keys that must not be used."""
    return web_app.create_app(
        AuthResources(settings),
        title="Valence auth",
        description="Accounts and login.",
        routers=api.routers,
    )
