"""Routes for the data export and the erasure of a user's own account."""

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


class DataExportResponse(StreamedFile):
    """The JSON document of a data export."""

    media_type = "application/json"


@router.get(
    "/users/me/export",
    status_code=200,  # FastAPI cannot infer it from this response class
    response_class=DataExportResponse,
    responses={200: {"model": schemas.DataExport}},
)
async def export(
    principal: Authenticated, database: DatabaseDep, exports: ExportsDep, limiter: LimiterDep
) -> Response:
    """Export all your data.

    The JSON document may be large. It is complete if it is valid JSON.
    """
    await limiter.acquire(*throttling.data_export(principal.user_id))
    with ExitStack() as slot:
        slot.enter_context(exports.slot(principal.user_id))
        pieces = await data_export.start(database, principal.user_id)
        return DataExportResponse(pieces, "valence.json", slot.pop_all())


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
    """Erase your account.

    Its username, e-mail address, sessions and API keys end at once; all its data is deleted soon
    after. This cannot be undone.
    """
    user = await database.run(accounts.get_active, principal.user_id)
    if user.password_hash is not None or body.password is not None:
        await limiter.acquire(*throttling.password(settings, user.username, address))
        await logins.check_password(passwords, user, body.password or "")
    await database.run(erasure.erase, user)
