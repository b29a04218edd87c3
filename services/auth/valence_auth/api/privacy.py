"""What belongs to oneself: taking it out, and having it erased."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated

import structlog
from fastapi import APIRouter, Response
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from valence_auth import accounts, erasing, logins, takeout, throttles
from valence_auth.api.parts import AddressDep, LimiterDep, PasswordsDep, SettingsDep
from valence_auth.schemas import privacy as schemas
from valence_common.access import Authenticated
from valence_common.bodies import strict
from valence_common.problems import DomainError
from valence_common.web import API, DatabaseDep, state

router = APIRouter(prefix=API, route_class=strict("auth_body_bytes"), tags=["users"])

PATIENCE_SECONDS = 30.0
LONGEST_SECONDS = 900.0

TurnsDep = Annotated[takeout.Turns, state("takeouts")]


class Download(StreamingResponse):
    """A JSON document to be saved; `turn` is closed at its end, whatever that is.

    One that cannot be completed is broken off: the client sees the connection end too early.
    """

    media_type = "application/json"

    def __init__(self, pieces: AsyncIterator[bytes], name: str, turn: ExitStack):
        disposition = f'attachment; filename="{name}"'
        super().__init__(pieces, headers={"Content-Disposition": disposition})
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._turn:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send it piece by piece, to a client that goes on reading."""

        async def send_soon(message: Message) -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await send(message)

        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                await super().stream_response(send_soon)
        except (DomainError, TimeoutError) as error:
            structlog.get_logger().warning("download_broken_off", error=type(error).__name__)


@router.get(
    "/users/me/export",
    status_code=200,  # which FastAPI cannot learn from this response class
    response_class=Download,
    responses={200: {"model": schemas.Takeout}},
)
async def export(
    principal: Authenticated, database: DatabaseDep, turns: TurnsDep, limiter: LimiterDep
) -> Response:
    """Take out all that belongs to the account, as one JSON document.

    It may be long, and is complete only with its last bracket.
    """
    await limiter.take(*throttles.take_out(principal.user_id))
    with ExitStack() as turn:
        turn.enter_context(turns.take(principal.user_id))
        pieces = await takeout.begin(database, principal.user_id)
        return Download(pieces, "valence.json", turn.pop_all())


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
        await limiter.take(*throttles.password(settings, user.username, address))
        await logins.check_password(passwords, user, body.password or "")
    await database.run(erasing.erase, user)
