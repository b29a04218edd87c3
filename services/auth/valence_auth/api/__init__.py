"""The auth service's routes: each takes, asks the noun, answers."""

from valence_auth.api import admin, authentication, keys, oidc, privacy, usage, users

routers = [
    authentication.router,
    oidc.router,
    users.router,
    privacy.router,
    keys.router,
    usage.router,
    admin.router,
]
