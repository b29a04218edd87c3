"""Routes for registration and login sessions."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.security import OAuth2PasswordRequestForm

from valence_auth import accounts, logins, sessions, throttling
from valence_auth.api.dependencies import (
    AddressDep,
    LimiterDep,
    PasswordsDep,
    SessionRequestDep,
    SettingsDep,
    tokens,
)
from valence_auth.schemas import accounts as schemas
from valence_auth.settings import MAX_BODY_BYTES
from valence_common import rate_limits
from valence_common.problems import InvalidCredential, NotFound
from valence_common.web.access import Authenticated, Public
from valence_common.web.app import API, DatabaseDep, KeyringDep
from valence_common.web.pagination import PageQuery
from valence_common.web.request_body import strict

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["auth"])

LoginForm = Annotated[OAuth2PasswordRequestForm, Depends()]


async def throttle_registration(
    address: AddressDep, limiter: LimiterDep, settings: SettingsDep
) -> AsyncIterator[Sequence[rate_limits.LimitStatus]]:
    """Charge a registration before any work is done for it."""
    hits = throttling.register(settings, address)
    limits = await limiter.acquire(*hits)
    async with throttling.refund_on_outage(limiter, hits):
        yield limits


async def throttle_login(
    form: LoginForm, address: AddressDep, limiter: LimiterDep, settings: SettingsDep
) -> AsyncIterator[Sequence[rate_limits.LimitStatus]]:
    """Charge a login before any work is done for it, whether the account exists or not."""
    of_address = throttling.login(settings, form.username, address)
    of_account = throttling.per_account(settings, form.username)
    limits = [*await limiter.acquire(*of_address), *await limiter.acquire(*of_account)]
    async with throttling.refund_on_outage(limiter, [*of_address, *of_account]):
        yield limits


RegistrationLimits = Annotated[Sequence[rate_limits.LimitStatus], Depends(throttle_registration)]
LoginLimits = Annotated[Sequence[rate_limits.LimitStatus], Depends(throttle_login)]


@router.post("/auth/register", status_code=201, dependencies=[Public])
async def register(
    body: schemas.Registration,
    database: DatabaseDep,
    passwords: PasswordsDep,
    limits: RegistrationLimits,
    response: Response,
) -> schemas.User:
    """Register an account."""
    # Hashed first, so that a taken username costs as much time as a free one.
    password_hash = await passwords.hash(body.password)
    user = await database.run(
        accounts.register, username=body.username, email=body.email, password_hash=password_hash
    )
    response.headers.update(rate_limits.headers(limits))
    return schemas.User.model_validate(user)


@router.post("/auth/login", dependencies=[Public])
async def login(
    form: LoginForm,
    request: SessionRequestDep,
    database: DatabaseDep,
    passwords: PasswordsDep,
    keyring: KeyringDep,
    settings: SettingsDep,
    limits: LoginLimits,
    response: Response,
) -> schemas.Tokens:
    """Log in with username and password.

    The form is that of the OAuth2 password grant. `scope` may request fewer scopes than the account
    has.
    """
    request = request._replace(scopes=form.scopes)
    grant = await logins.log_in(database, passwords, form.username, form.password, request)
    # Not on rejections, whose responses are identical, whatever was tried before.
    response.headers.update(rate_limits.headers(limits))
    return tokens(keyring, settings, grant)


@router.post("/auth/refresh", dependencies=[Public])
async def refresh(
    body: schemas.Refresh, database: DatabaseDep, keyring: KeyringDep, settings: SettingsDep
) -> schemas.Tokens:
    """Exchange a refresh token for new tokens.

    Each refresh token can be used once, and again within ten seconds in case the response was lost.
    Any other reuse ends the session.
    """
    idle = timedelta(days=settings.session_idle_days)
    grant = await database.run(sessions.refresh, body.refresh_token, idle=idle)
    if grant is None:
        raise InvalidCredential
    return tokens(keyring, settings, grant)


@router.post("/auth/logout", status_code=204)
async def logout(principal: Authenticated, database: DatabaseDep) -> None:
    """Log out.

    Ends this session.
    """
    with suppress(NotFound):  # it ended since
        await database.run(sessions.end, principal.user_id, principal.session_id)


@router.post("/auth/logout-all", status_code=204)
async def logout_all(principal: Authenticated, database: DatabaseDep) -> None:
    """Log out everywhere.

    Ends all your sessions.
    """
    await database.run(sessions.log_out_everywhere, principal.user_id)


@router.get("/auth/sessions")
async def list_sessions(
    principal: Authenticated,
    database: DatabaseDep,
    settings: SettingsDep,
    query: Annotated[PageQuery, Query()],
) -> schemas.SessionPage:
    """List your sessions.

    Newest first, without those that have ended.
    """
    idle = timedelta(days=settings.session_idle_days)
    rows, next_cursor = await database.run(
        sessions.page, principal.user_id, idle=idle, limit=query.limit, cursor=query.cursor
    )
    items = [schemas.Session.from_row(row, current=principal.session_id) for row in rows]
    return schemas.SessionPage(items=items, next_cursor=next_cursor)


@router.delete("/auth/sessions/{session_id}", status_code=204)
async def end_session(
    session_id: uuid.UUID, principal: Authenticated, database: DatabaseDep
) -> None:
    """End one of your sessions."""
    await database.run(sessions.end, principal.user_id, session_id)
