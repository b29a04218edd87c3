"""Registering, and login sessions from their beginning to their end."""

import hashlib
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.security import OAuth2PasswordRequestForm

from valence_auth import accounts, sessions
from valence_auth.api.parts import LimiterDep, PasswordsDep, SettingsDep
from valence_auth.schemas import accounts as schemas
from valence_common.access import Public
from valence_common.bodies import strict
from valence_common.limits import Charge, Window
from valence_common.problems import InvalidCredential
from valence_common.security import issue
from valence_common.web import API, DatabaseDep, KeyringDep

router = APIRouter(prefix=API, route_class=strict("auth_body_bytes"), tags=["auth"])


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
    seconds = settings.login_window_seconds
    await limiter.take(
        Charge(Window("login", settings.login_attempts, seconds), key),
        Charge(Window("login-address", settings.login_address_attempts, seconds), address),
    )


@router.post("/auth/register", status_code=201, dependencies=[Public])
async def register(
    body: schemas.Registration, database: DatabaseDep, passwords: PasswordsDep
) -> schemas.User:
    """Create an account."""
    password_hash = await passwords.hash(body.password)
    user = await database.run(
        accounts.register, username=body.username, email=body.email, password_hash=password_hash
    )
    return schemas.User.model_validate(user)


@router.post("/auth/login", dependencies=[Public, Depends(throttle_login)])
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
    opened = await database.run(
        sessions.open_session, user, lifetime=timedelta(days=settings.refresh_token_days)
    )
    lifetime = settings.access_token_seconds
    token = issue(
        keyring,
        user_id=user.id,
        session_id=opened.session_id,
        scopes=opened.scopes,
        lifetime_seconds=lifetime,
    )
    return schemas.Tokens(
        access_token=token, expires_in=lifetime, refresh_token=opened.refresh_token
    )
