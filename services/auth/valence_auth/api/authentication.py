"""Registering, and login sessions from their beginning to their end."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.security import OAuth2PasswordRequestForm

from valence_auth import accounts, logins, sessions, throttling
from valence_auth.api.dependencies import (
    AddressDep,
    LimiterDep,
    OpeningDep,
    PasswordsDep,
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
    """Count a registration before any work is done for it."""
    charges = throttling.register(settings, address)
    left = await limiter.acquire(*charges)
    async with throttling.returned(limiter, charges):
        yield left


async def throttle_login(
    form: LoginForm, address: AddressDep, limiter: LimiterDep, settings: SettingsDep
) -> AsyncIterator[Sequence[rate_limits.LimitStatus]]:
    """Count a login before any work is done for it, whether the account exists or not."""
    own = throttling.login(settings, form.username, address)
    everywhere = throttling.everywhere(settings, form.username)
    left = [*await limiter.acquire(*own), *await limiter.acquire(*everywhere)]
    async with throttling.returned(limiter, [*own, *everywhere]):
        yield left


Registrations = Annotated[Sequence[rate_limits.LimitStatus], Depends(throttle_registration)]
Attempts = Annotated[Sequence[rate_limits.LimitStatus], Depends(throttle_login)]


@router.post("/auth/register", status_code=201, dependencies=[Public])
async def register(
    body: schemas.Registration,
    database: DatabaseDep,
    passwords: PasswordsDep,
    left: Registrations,
    response: Response,
) -> schemas.User:
    """Create an account."""
    # Hashed first: a name that is taken costs as much time as one that is free.
    password_hash = await passwords.hash(body.password)
    user = await database.run(
        accounts.register, username=body.username, email=body.email, password_hash=password_hash
    )
    response.headers.update(rate_limits.headers(left))
    return schemas.User.model_validate(user)


@router.post("/auth/login", dependencies=[Public])
async def login(
    form: LoginForm,
    opening: OpeningDep,
    database: DatabaseDep,
    passwords: PasswordsDep,
    keyring: KeyringDep,
    settings: SettingsDep,
    left: Attempts,
    response: Response,
) -> schemas.Tokens:
    """Trade a username and password for tokens (OAuth2 password form).

    `scope` may ask for less than all that the account may do.
    """
    open_it = partial(opening, scopes=form.scopes)
    grant = await logins.log_in(database, passwords, form.username, form.password, open_it)
    # Not on refusals: they are alike to the byte, whoever has tried before.
    response.headers.update(rate_limits.headers(left))
    return tokens(keyring, settings, grant)


@router.post("/auth/refresh", dependencies=[Public])
async def refresh(
    body: schemas.Refresh, database: DatabaseDep, keyring: KeyringDep, settings: SettingsDep
) -> schemas.Tokens:
    """Trade a refresh token for new tokens; one that is used twice ends its session.

    Within ten seconds it may be sent again, for the case that the answer was lost.
    """
    idle = timedelta(days=settings.session_idle_days)
    grant = await database.run(sessions.refresh, body.refresh_token, idle=idle)
    if grant is None:
        raise InvalidCredential
    return tokens(keyring, settings, grant)


@router.post("/auth/logout", status_code=204)
async def logout(principal: Authenticated, database: DatabaseDep) -> None:
    """End the session that asks."""
    with suppress(NotFound):  # it has ended meanwhile
        await database.run(sessions.end, principal.user_id, principal.session_id)


@router.post("/auth/logout-all", status_code=204)
async def logout_all(principal: Authenticated, database: DatabaseDep) -> None:
    """End all sessions of the account."""
    await database.run(sessions.log_out_everywhere, principal.user_id)


@router.get("/auth/sessions")
async def list_sessions(
    principal: Authenticated,
    database: DatabaseDep,
    settings: SettingsDep,
    query: Annotated[PageQuery, Query()],
) -> schemas.SessionPage:
    """The account's live sessions, newest first."""
    idle = timedelta(days=settings.session_idle_days)
    found, after = await database.run(
        sessions.page, principal.user_id, idle=idle, limit=query.limit, after=query.cursor
    )
    items = [schemas.Session.of(login, current=principal.session_id) for login in found]
    return schemas.SessionPage(items=items, next_cursor=after)


@router.delete("/auth/sessions/{session_id}", status_code=204)
async def end_session(
    session_id: uuid.UUID, principal: Authenticated, database: DatabaseDep
) -> None:
    """End one session of the account."""
    await database.run(sessions.end, principal.user_id, session_id)
