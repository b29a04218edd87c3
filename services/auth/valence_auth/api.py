"""The auth service's routes: each takes, asks the noun, answers."""

import hashlib
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.security import OAuth2PasswordRequestForm

from valence_auth import accounts, schemas, sessions
from valence_auth.passwords import Passwords
from valence_auth.settings import Settings
from valence_common.bodies import strict
from valence_common.limits import Limiter, Window
from valence_common.problems import InvalidCredential
from valence_common.security import Authenticated, Public, issue
from valence_common.web import API, DatabaseDep, KeyringDep, state

router = APIRouter(prefix=API, route_class=strict("auth_body_bytes"))

PasswordsDep = Annotated[Passwords, state("passwords")]
LimiterDep = Annotated[Limiter, state("limiter")]
SettingsDep = Annotated[Settings, state("settings")]


async def throttle_login(
    request: Request,
    form: Annotated[OAuth2PasswordRequestForm, Depends()],
    limiter: LimiterDep,
    settings: SettingsDep,
) -> None:
    """Count a login before any work is done for it, whether the account exists or not."""
    account = accounts.username_key(form.username) or form.username
    address = request.client.host if request.client else ""
    key = hashlib.sha256(f"{account}\n{address}".encode()).hexdigest()[:32]
    window = Window("login", settings.login_attempts, settings.login_window_seconds)
    await limiter.count(window, key)


@router.post("/auth/register", status_code=201, tags=["auth"], dependencies=[Public])
async def register(
    body: schemas.Registration, database: DatabaseDep, passwords: PasswordsDep
) -> schemas.User:
    """Create an account."""
    password_hash = await passwords.hash(body.password)
    user = await database.run(
        accounts.register, username=body.username, email=body.email, password_hash=password_hash
    )
    return schemas.User.model_validate(user)


@router.post("/auth/login", tags=["auth"], dependencies=[Public, Depends(throttle_login)])
async def login(
    form: Annotated[OAuth2PasswordRequestForm, Depends()],
    database: DatabaseDep,
    passwords: PasswordsDep,
    keyring: KeyringDep,
    settings: SettingsDep,
) -> schemas.Tokens:
    """Trade a username and password for tokens (OAuth2 password form)."""
    user = await database.run(accounts.find, form.username)
    matches = await passwords.check(form.password, user.password_hash if user else None)
    if user is None or not matches or not user.is_active:
        raise InvalidCredential("Incorrect username or password")
    session_id, refresh_token = await database.run(
        sessions.open_session, user.id, lifetime=timedelta(days=settings.refresh_token_days)
    )
    lifetime = settings.access_token_seconds
    token = issue(keyring, user_id=user.id, session_id=session_id, lifetime_seconds=lifetime)
    return schemas.Tokens(access_token=token, expires_in=lifetime, refresh_token=refresh_token)


@router.get("/users/me", tags=["users"])
async def me(principal: Authenticated, database: DatabaseDep) -> schemas.User:
    """The account that the token speaks for."""
    return schemas.User.model_validate(await database.run(accounts.current, principal.user_id))
