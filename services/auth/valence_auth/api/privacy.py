"""What belongs to oneself: taking it out, and having it erased."""

from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Response

from valence_auth import accounts, data_export, erasure, logins, throttling
from valence_auth.api.dependencies import AddressDep, LimiterDep, PasswordsDep, SettingsDep
from valence_auth.resources import AuthResources
from valence_auth.schemas import privacy as schemas
from valence_auth.settings import MAX_BODY_BYTES
from valence_common.concurrency import ConcurrencyLimit
from valence_common.web.access import Authenticated
from valence_common.web.app import API, DatabaseDep
from valence_common.web.request_body import strict
from valence_common.web.state import provide
from valence_common.web.streaming import StreamedFile

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["users"])

ExportsDep = Annotated[
    ConcurrencyLimit, provide(AuthResources, lambda resources: resources.exports)
]


class TakeoutDocument(StreamedFile):
    """The JSON document of a take-out."""

    media_type = "application/json"


@router.get(
    "/users/me/export",
    status_code=200,  # which FastAPI cannot learn from this response class
    response_class=TakeoutDocument,
    responses={200: {"model": schemas.Takeout}},
)
async def export(
    principal: Authenticated, database: DatabaseDep, exports: ExportsDep, limiter: LimiterDep
) -> Response:
    """Take out all that belongs to the account, as one JSON document.

    It may be long, and is complete only with its last bracket.
    """
    await limiter.acquire(*throttling.take_out(principal.user_id))
    with ExitStack() as turn:
        turn.enter_context(exports.slot(principal.user_id))
        pieces = await data_export.begin(database, principal.user_id)
        return TakeoutDocument(pieces, "valence.json", turn.pop_all())


@router.delete("/users/me", status_code=204)
async def erase(
    body: schemas.Erasure,
    principal: Authenticated,
    address: AddressDep,
    database: DatabaseDep,
    passwords: PasswordsDep,
    limiter: LimiterDep,
    settings: SettingsDep,
) -> None:
    """Erase the account: its names, sessions and keys now, all that it ever sent soon after.

    There is no way back.
    """
    user = await database.run(accounts.current, principal.user_id)
    if user.password_hash is not None or body.password is not None:
        await limiter.acquire(*throttling.password(settings, user.username, address))
        await logins.check_password(passwords, user, body.password or "")
    await database.run(erasure.erase, user)
