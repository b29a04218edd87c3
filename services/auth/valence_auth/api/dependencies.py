"""The dependencies of route handlers, and responses that several of them return."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Request

from valence_auth.passwords import Passwords
from valence_auth.resources import AuthResources
from valence_auth.schemas import accounts as schemas
from valence_auth.sessions import ClientInfo, Grant, SessionRequest
from valence_auth.settings import Settings
from valence_common.keyring import Keyring
from valence_common.rate_limits import Limiter
from valence_common.security import issue
from valence_common.web.state import provide

PasswordsDep = Annotated[Passwords, provide(AuthResources, lambda resources: resources.passwords)]
LimiterDep = Annotated[Limiter, provide(AuthResources, lambda resources: resources.limiter)]
SettingsDep = Annotated[Settings, provide(AuthResources, lambda resources: resources.settings)]

MAX_ADDRESS, MAX_USER_AGENT = 45, 256


def address_of(request: Request) -> str:
    """Return the client's address, from trusted proxy headers where there are any."""
    return request.client.host if request.client else ""


def _client(request: Request) -> ClientInfo:
    agent = "".join(c for c in request.headers.get("user-agent", "") if c.isprintable())
    return ClientInfo(address_of(request)[:MAX_ADDRESS] or None, agent[:MAX_USER_AGENT] or None)


def session_request(request: Request, settings: SettingsDep) -> SessionRequest:
    """Return the session that this request would open: the settings' lifetimes, its client."""
    return SessionRequest(
        lifetime=timedelta(days=settings.refresh_token_days),
        idle=timedelta(days=settings.session_idle_days),
        client=_client(request),
    )


AddressDep = Annotated[str, Depends(address_of)]
SessionRequestDep = Annotated[SessionRequest, Depends(session_request)]


def tokens(keyring: Keyring, settings: Settings, grant: Grant) -> schemas.Tokens:
    """Return the tokens of a grant; the access token never outlives its session."""
    remaining = (grant.expires_at - datetime.now(UTC)).total_seconds()
    lifetime = max(1, min(settings.access_token_seconds, int(remaining)))
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
