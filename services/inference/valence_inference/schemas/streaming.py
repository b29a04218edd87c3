"""What goes over event streams and WebSockets."""

import uuid
from typing import Annotated, Final

from pydantic import BaseModel, PlainValidator

from valence_inference.schemas.analyses import Explanation
from valence_inference.schemas.fields import STRICT, Sentiment, Text

MAX_ID_CHARACTERS: Final = 128
MAX_ID_NUMBER: Final = 2**53 - 1  # what a browser's numbers hold


def _id(value: object) -> str | int:
    short = isinstance(value, str) and len(value) <= MAX_ID_CHARACTERS
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_ID_NUMBER
    if isinstance(value, str | int) and (short or whole):
        return value
    raise ValueError(f"must be a whole number or up to {MAX_ID_CHARACTERS} characters")


MessageId = Annotated[str | int, PlainValidator(_id)]


class Progress(BaseModel):
    """How far a batch is: as its status says it."""

    status: str
    total: int
    done: int
    failed: int
    progress: float
    rate: float | None = None
    eta_seconds: int | None = None


class Message(BaseModel):
    """A text to score now; `id` comes back with its answer."""

    model_config = STRICT

    text: Text
    id: MessageId | None = None
    explain: bool = False
    record: bool = False


class Reply(BaseModel):
    """The answer to one message; the last two where it asked to be recorded."""

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
