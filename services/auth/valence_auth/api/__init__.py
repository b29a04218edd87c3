"""The auth service's routes: each takes, asks the noun, answers."""

from valence_auth.api import authentication, users

routers = [authentication.router, users.router]
