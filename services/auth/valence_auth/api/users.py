"""One's own account."""

from fastapi import APIRouter

from valence_auth import accounts
from valence_auth.schemas import accounts as schemas
from valence_common.access import Authenticated
from valence_common.bodies import strict
from valence_common.web import API, DatabaseDep

router = APIRouter(prefix=API, route_class=strict("auth_body_bytes"), tags=["users"])


@router.get("/users/me")
async def me(principal: Authenticated, database: DatabaseDep) -> schemas.User:
    """The account that the token speaks for."""
    return schemas.User.model_validate(await database.run(accounts.current, principal.user_id))
