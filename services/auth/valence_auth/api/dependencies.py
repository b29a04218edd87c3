"""The parts of the application that handlers ask for, and the answers that several give."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

from fastapi import Depends, Request

from valence_auth.passwords import Passwords
from valence_auth.resources import AuthResources
from valence_auth.schemas import accounts as schemas
from valence_auth.sessions import Client, Grant, open_session
from valence_auth.settings import Settings
from valence_common.keyring import Keyring
from valence_common.rate_limits import Limiter
from valence_common.security import issue
from valence_common.web.state import provide

PasswordsDep = Annotated[Passwords, provide(AuthResources, lambda resources: resources.passwords)]
LimiterDep = Annotated[Limiter, provide(AuthResources, lambda resources: resources.limiter)]
SettingsDep = Annotated[Settings, provide(AuthResources, lambda resources: resources.settings)]

Opening = Callable[..., Grant]

MAX_ADDRESS, MAX_USER_AGENT = 45, 256


def address_of(request: Request) -> str:
    """The client's address, as the trusted proxies tell it."""
    return request.client.host if request.client else ""


def _client(request: Request) -> Client:
    agent = "".join(c for c in request.headers.get("user-agent", "") if c.isprintable())
    return Client(address_of(request)[:MAX_ADDRESS] or None, agent[:MAX_USER_AGENT] or None)


def _opening(request: Request, settings: SettingsDep) -> Opening:
    return partial(
        open_session,
        lifetime=timedelta(days=settings.refresh_token_days),
        idle=timedelta(days=settings.session_idle_days),
        client=_client(request),
    )


AddressDep = Annotated[str, Depends(address_of)]
OpeningDep = Annotated[Opening, Depends(_opening)]
"""Opens a session for this request's client, with the lifetimes of the settings."""


def tokens(keyring: Keyring, settings: Settings, grant: Grant) -> schemas.Tokens:
    """What a client gets of a grant; no access token outlives its session."""
    left = (grant.expires_at - datetime.now(UTC)).total_seconds()
    lifetime = max(1, min(settings.access_token_seconds, int(left)))
    token = issue(
        keyring,
        user_id=grant.user_id,
        session_id=grant.session_id,
        scopes=grant.scopes,
        lifetime_seconds=lifetime,
    )
    return schemas.Tokens(
        access_token=token, expires_in=lifetime, refresh_token=grant.refresh_token
    )
