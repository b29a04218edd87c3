"""Analysis over a WebSocket (`docs/live.md`): texts in, results out in the same order.

One message is processed at a time; meanwhile the connection is not read. An error in a message, or
a rate limit, is answered in its reply and does not close the connection.
"""

import asyncio
import contextlib
from typing import Any, Final

import msgspec
from fastapi import APIRouter, WebSocket
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from valence_common.problems import DomainError, from_pydantic, to_problem
from valence_common.web import request_body, strict_json
from valence_common.web.access import Public
from valence_common.web.app import API
from valence_common.web.middleware import CLOSE_SERVICE_RESTART
from valence_common.web.request_body import strict
from valence_inference import scoring
from valence_inference.api.dependencies import AnalyzeConnection, ResourcesDep
from valence_inference.history import prediction_from_score
from valence_inference.live.connections import CloseReason, Connection
from valence_inference.metering.limits import ANALYZE
from valence_inference.resources import InferenceResources
from valence_inference.schemas import streaming as schemas
from valence_inference.schemas.analyses import Explanation
from valence_inference.settings import MAX_BODY_BYTES
from valence_ml import model_name

PROTOCOL: Final = "valence.v1"

REPLY_TIMEOUT_SECONDS: Final = 15.0
"""For processing a message, and for the client to read the reply."""

CLOSE_TIMEOUT_SECONDS: Final = 1.0
"""For the message in progress once the connection must close, and for the closing handshake."""

CLOSE_NORMAL: Final = 1000
CLOSE_NOT_TEXT: Final = 1003
CLOSE_CREDENTIAL: Final = 4401
CLOSE_CODES: Final = {
    CloseReason.CREDENTIAL: CLOSE_CREDENTIAL,
    CloseReason.STOPPING: CLOSE_SERVICE_RESTART,
}

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["sentiment"])

_MESSAGE_ID: TypeAdapter[schemas.MessageId] = TypeAdapter(schemas.MessageId)


@router.websocket("/sentiment/stream")
async def stream(socket: WebSocket, connection: AnalyzeConnection, resources: ResourcesDep) -> None:
    """Score the texts of a client until either side closes."""
    await WebSocketSession(socket, connection, resources).run()


@router.get("/sentiment/stream", include_in_schema=False, dependencies=[Public])
async def stream_without_upgrade() -> None:
    """426: this route needs a WebSocket upgrade."""
    headers = {"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Version": "13"}
    raise HTTPException(426, headers=headers)


class WebSocketSession:
    """One client's WebSocket, from accept to close."""

    def __init__(self, socket: WebSocket, connection: Connection, resources: InferenceResources):
        self._socket, self._connection = socket, connection
        self._principal = connection.principal
        self._resources = resources

    async def run(self) -> None:
        """Accept the WebSocket, answer messages, and close it."""
        offered = PROTOCOL in self._socket.scope["subprotocols"]
        await self._socket.accept(subprotocol=PROTOCOL if offered else None)
        code = await self._receive_loop()
        if code is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await self._socket.close(code)

    async def _receive_loop(self) -> int | None:
        """Answer messages; return the close code, or None if the client has disconnected."""
        idle_seconds = self._resources.settings.socket_idle_seconds
        while True:
            try:
                async with self._connection.timeout(idle_seconds):
                    message = await self._socket.receive()
            except TimeoutError:
                return self._close_code() or CLOSE_NORMAL
            if message["type"] == "websocket.disconnect":
                return None
            text = message.get("text")
            if text is None:
                return CLOSE_NOT_TEXT
            try:
                async with self._connection.timeout(
                    REPLY_TIMEOUT_SECONDS, grace=CLOSE_TIMEOUT_SECONDS
                ):
                    await self._socket.send_text(await self._reply(text))
            except TimeoutError:  # the client does not read its replies
                return self._close_code()

    def _close_code(self) -> int | None:
        reason = self._connection.close_reason
        return None if reason is None else CLOSE_CODES[reason]

    async def _reply(self, text: str) -> str:
        """Return the reply to one message, which counts as one analysis even if it is invalid."""
        value: Any = None
        error: DomainError | None = None
        try:
            value = await _loads(text)
        except DomainError as invalid:
            error = invalid
        message_id = _message_id(value)
        try:
            await self._resources.meter.count_message(self._principal)
            if error is not None:
                raise error
            reply = await self._score(_validate(value))
        except DomainError as rejection:
            self._count(rejection.status)
            return self._error_reply(message_id, rejection)
        self._count(200)
        if message_id is not None:
            reply.id = message_id
        return reply.model_dump_json(exclude_unset=True)

    def _count(self, status: int) -> None:
        self._resources.connection_metrics.messages.labels(str(status)).inc()

    async def _score(self, message: schemas.Message) -> schemas.Reply:
        resources, scorer = self._resources, self._resources.scorer
        scoring.check_text(message.text, max_characters=resources.settings.max_text_characters)
        score, seconds = await scoring.score(scorer, message.text)
        reply = schemas.Reply(
            sentiment=score.label,
            confidence=score.confidence,
            probabilities=score.probabilities,
            low_confidence=score.low_confidence,
            model=model_name(scorer),
            processing_time=seconds,
        )
        if message.record:
            user_id = self._principal.user_id
            prediction = prediction_from_score(user_id, message.text, score, reply.model)
            reply.recorded = await resources.history.record(prediction)
            reply.prediction_id = prediction.id
        resources.usage.count(self._principal, ANALYZE, 1)
        if message.explain:
            reply.explanation = Explanation.from_model(scorer.explain(message.text))
        return reply

    def _error_reply(self, message_id: str | int | None, error: DomainError) -> str:
        problem = to_problem(self._socket, error)
        if "Retry-After" in error.headers:
            problem["retry_after"] = int(error.headers["Retry-After"])
        reply: dict[str, Any] = {} if message_id is None else {"id": message_id}
        return msgspec.json.encode(reply | {"error": problem}).decode()


async def _loads(text: str) -> Any:
    body = text.encode()
    large = len(body) > request_body.THREAD_THRESHOLD_BYTES
    return await asyncio.to_thread(strict_json.loads, body) if large else strict_json.loads(body)


def _message_id(value: object) -> str | int | None:
    """Return the id of a message if it is valid, whatever else is wrong with the message."""
    if not isinstance(value, dict) or value.get("id") is None:
        return None
    try:
        return _MESSAGE_ID.validate_python(value["id"], strict=True)
    except ValidationError:
        return None


def _validate(value: object) -> schemas.Message:
    try:
        return schemas.Message.model_validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise from_pydantic(errors, within="body") from None
