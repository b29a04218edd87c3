"""Conversations over WebSockets: texts come in, and their scores go out in the same order.

One message is worked on at a time; meanwhile the connection is not read. What is wrong with one
message, a limit included, is told in its answer and ends nothing.
"""

import asyncio
import contextlib
from typing import Any, Final

import msgspec
from pydantic import TypeAdapter, ValidationError
from starlette.websockets import WebSocket

from valence_common.problems import DomainError, from_pydantic, to_problem
from valence_common.web import request_body, strict_json
from valence_common.web.middleware import CLOSE_SERVICE_RESTART
from valence_inference import scoring
from valence_inference.history import History, prediction_from_score
from valence_inference.live.connections import CloseReason, Connection
from valence_inference.live.metrics import ConnectionMetrics
from valence_inference.metering.limits import ANALYZE, RequestLimiter
from valence_inference.metering.usage import Usage
from valence_inference.schemas import streaming as schemas
from valence_inference.settings import Settings
from valence_ml import Scorer, model_name

PROTOCOL: Final = "valence.v1"
ANSWER_TIMEOUT_SECONDS: Final = 15.0  # our few, and those that its client takes to read it
CLOSE_TIMEOUT_SECONDS: Final = 1.0  # for what is in work when the end has come

DONE: Final = 1000
NOT_TEXT: Final = 1003
CREDENTIAL: Final = 4401
CODES: Final = {CloseReason.CREDENTIAL: CREDENTIAL, CloseReason.STOPPING: CLOSE_SERVICE_RESTART}

_ID: TypeAdapter[schemas.MessageId] = TypeAdapter(schemas.MessageId)


class WebSocketSession:
    """What one client says, and is answered."""

    def __init__(
        self,
        socket: WebSocket,
        stream: Connection,
        *,
        scorer: Scorer,
        history: History,
        meter: RequestLimiter,
        usage: Usage,
        settings: Settings,
        metrics: ConnectionMetrics,
    ):
        self._socket, self._stream = socket, stream
        self._principal = stream.principal
        self._scorer = scorer
        self._history = history
        self._meter = meter
        self._usage = usage
        self._settings = settings
        self._metrics = metrics

    async def run(self) -> None:
        """Accept the connection, and talk until it ends or must end."""
        spoken = PROTOCOL if PROTOCOL in self._socket.scope["subprotocols"] else None
        await self._socket.accept(subprotocol=spoken)
        code = await self._receive_loop()
        if code is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await self._socket.close(code)

    async def _receive_loop(self) -> int | None:
        """Answer messages; the code to close with, or None for a client that is not there."""
        while True:
            try:
                async with self._stream.timeout(self._settings.socket_idle_seconds):
                    message = await self._socket.receive()
            except TimeoutError:
                return self._close_code() or DONE
            if message["type"] == "websocket.disconnect":
                return None
            text = message.get("text")
            if text is None:
                return NOT_TEXT
            try:
                async with self._stream.timeout(
                    ANSWER_TIMEOUT_SECONDS, grace=CLOSE_TIMEOUT_SECONDS
                ):
                    await self._socket.send_text(await self._answer(text))
            except TimeoutError:  # it does not read its answers
                return self._close_code()

    def _close_code(self) -> int | None:
        return None if self._stream.close_reason is None else CODES[self._stream.close_reason]

    async def _answer(self, text: str) -> str:
        """The answer to one message, whatever it is; counted as one analysis."""
        value, fault = None, None
        try:
            value = await _loads(text)
        except DomainError as error:
            fault = error
        name = _id_of(value)
        try:
            await self._meter.count_message(self._principal)
            if fault is not None:
                raise fault
            reply = await self._score(_validated(value))
        except DomainError as error:
            self._metrics.messages.labels(str(error.status)).inc()
            return self._refusal(name, error)
        self._metrics.messages.labels("200").inc()
        if name is not None:
            reply.id = name
        return reply.model_dump_json(exclude_unset=True)

    async def _score(self, message: schemas.Message) -> schemas.Reply:
        scoring.check_text(message.text, max_characters=self._settings.max_text_characters)
        score, seconds = await scoring.score(self._scorer, message.text)
        reply = schemas.Reply(
            sentiment=score.label,
            confidence=score.confidence,
            probabilities=score.probabilities,
            low_confidence=score.low_confidence,
            model=model_name(self._scorer),
            processing_time=seconds,
        )
        if message.record:
            prediction = prediction_from_score(
                self._principal.user_id, message.text, score, reply.model
            )
            reply.recorded = await self._history.record(prediction)
            reply.prediction_id = prediction.id
        self._usage.count(self._principal, ANALYZE, 1)
        if message.explain:
            reply.explanation = scoring.explain(self._scorer, message.text)
        return reply

    def _refusal(self, name: str | int | None, error: DomainError) -> str:
        problem = to_problem(self._socket, error)
        if "Retry-After" in error.headers:
            problem["retry_after"] = int(error.headers["Retry-After"])
        answer: dict[str, Any] = {} if name is None else {"id": name}
        return msgspec.json.encode(answer | {"error": problem}).decode()


async def _loads(text: str) -> Any:
    body = text.encode()
    large = len(body) > request_body.THREAD_THRESHOLD_BYTES
    return await asyncio.to_thread(strict_json.loads, body) if large else strict_json.loads(body)


def _id_of(value: object) -> str | int | None:
    """What a message calls itself, whatever else is wrong with it."""
    if not isinstance(value, dict) or value.get("id") is None:
        return None
    try:
        return _ID.validate_python(value["id"], strict=True)
    except ValidationError:
        return None


def _validated(value: object) -> schemas.Message:
    try:
        return schemas.Message.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise from_pydantic(found, within="body") from None
