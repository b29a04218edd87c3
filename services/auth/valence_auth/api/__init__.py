"""The routes of the auth service: they translate between HTTP and the other modules."""

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
