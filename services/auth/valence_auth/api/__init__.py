"""The auth service's routes: each takes, asks the noun, answers."""

from valence_auth.api import admin, api_keys, authentication, oidc, privacy, usage, users

routers = [
    authentication.router,
    oidc.router,
    users.router,
    privacy.router,
    api_keys.router,
    usage.router,
    admin.router,
]
