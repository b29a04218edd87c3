"""Routes for a user's own profile and password."""

from fastapi import APIRouter

from valence_auth import accounts, logins, throttling
from valence_auth.api.dependencies import AddressDep, LimiterDep, PasswordsDep, SettingsDep
from valence_auth.passwords import password_error
from valence_auth.schemas import accounts as schemas
from valence_auth.settings import MAX_BODY_BYTES
from valence_common.problems import FieldError, Unprocessable
from valence_common.web.access import Authenticated
from valence_common.web.app import API, DatabaseDep
from valence_common.web.request_body import strict

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["users"])


@router.get("/users/me")
async def me(principal: Authenticated, database: DatabaseDep) -> schemas.User:
    """Get your account."""
    return schemas.User.model_validate(await database.run(accounts.get_active, principal.user_id))


@router.patch("/users/me")
async def change_profile(
    body: schemas.Profile, principal: Authenticated, database: DatabaseDep
) -> schemas.User:
    """Change your username or e-mail address."""
    user = await database.run(
        accounts.change_profile, principal.user_id, username=body.username, email=body.email
    )
    return schemas.User.model_validate(user)


@router.put("/users/me/password", status_code=204)
async def change_password(
    body: schemas.NewPassword,
    principal: Authenticated,
    address: AddressDep,
    database: DatabaseDep,
    passwords: PasswordsDep,
    limiter: LimiterDep,
    settings: SettingsDep,
) -> None:
    """Change your password.

    All other sessions end.
    """
    user = await database.run(accounts.get_active, principal.user_id)
    if error := password_error(body.new_password, user.username):
        message = f"The password {error}"
        raise Unprocessable([FieldError("body.new_password", "value_error", message)])
    await limiter.acquire(*throttling.password(settings, user.username, address))
    await logins.check_password(passwords, user, body.current_password)
    new = await passwords.hash(body.new_password)
    await database.run(logins.change_password, user, new, keep=principal.session_id)
