"""Messages of event streams and WebSockets."""

import uuid
from typing import Annotated, Final

from pydantic import BaseModel, PlainValidator

from valence_inference.schemas.analyses import Explanation
from valence_inference.schemas.fields import STRICT, Sentiment, Text

MAX_ID_CHARACTERS: Final = 128
MAX_ID_NUMBER: Final = 2**53 - 1  # the largest integer that JavaScript represents exactly


def _check_id(value: object) -> str | int:
    if isinstance(value, str) and len(value) <= MAX_ID_CHARACTERS:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_ID_NUMBER:
        return value
    raise ValueError(f"must be an integer or a string of up to {MAX_ID_CHARACTERS} characters")


MessageId = Annotated[str | int, PlainValidator(_check_id)]


class Progress(BaseModel):
    """The progress of a batch; the fields are those of its status."""

    status: str
    total: int
    done: int
    failed: int
    progress: float
    rate: float | None = None
    eta_seconds: int | None = None


class Message(BaseModel):
    """A text to score; the reply has the same `id`."""

    model_config = STRICT

    text: Text
    id: MessageId | None = None
    explain: bool = False
    record: bool = False


class Reply(BaseModel):
    """The reply to one message; the last two fields only if it asked to be recorded."""

    id: MessageId | None = None
    sentiment: Sentiment
    confidence: float
    probabilities: dict[Sentiment, float]
    low_confidence: bool
    model: str
    processing_time: float
    explanation: Explanation | None = None
    recorded: bool | None = None
    prediction_id: uuid.UUID | None = None
