"""What the inference service takes and answers."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints

from valence_common.wire import Digest, Moment, PlainText
from valence_inference.batches import Status

Sentiment = Literal["positive", "negative"]
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]

_CLOSED = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class AnalyzeRequest(BaseModel):
    """One text to score."""

    model_config = _CLOSED

    text: Text = Field(
        description="The text, up to 10,000 characters.", examples=["I love this product!"]
    )
    explain: bool = Field(default=False, description="Also tell what each term contributed.")


class Term(BaseModel):
    """What one term of the text added to the logit of `positive`."""

    term: str
    count: int
    contribution: float


class Explanation(BaseModel):
    """Exact: the bias and all contributions add up to the logit."""

    bias: float
    logit: float
    terms: list[Term]


class Analysis(BaseModel):
    """The answer for one text; `processing_time` is in seconds."""

    id: uuid.UUID
    text: str
    sentiment: Sentiment
    confidence: float = Field(ge=0.5, le=1)
    probabilities: dict[Sentiment, float]
    low_confidence: bool = Field(description="No term of the text is known, or it is a close call.")
    model: str
    processing_time: float
    recorded: bool = Field(description="Whether the answer is in the history.")
    explanation: Explanation | None = None


class BatchRequest(BaseModel):
    """Many texts to score."""

    model_config = _CLOSED

    texts: Annotated[list[Text], FailFast()] = Field(
        description="1 to 100,000 texts of up to 10,000 characters each.",
        examples=[["I love this product!", "This is terrible, very disappointed."]],
        min_length=1,
    )


class Accepted(BaseModel):
    """A batch that is stored and will be scored."""

    task_id: uuid.UUID
    status: Literal["pending"] = "pending"
    total: int


class Result(BaseModel):
    """The answer for one text of a batch; without `sentiment`, `error` says why."""

    index: int
    text: str | None = Field(description="Null where texts are not stored.")
    sentiment: Sentiment | None
    confidence: float | None
    low_confidence: bool | None
    model: str | None
    error: str | None


class Task(BaseModel):
    """A batch; `progress` goes from 0 to 1, `results` come with small batches that have ended."""

    task_id: uuid.UUID
    status: Literal[
        "pending", "processing", "completed", "completed_with_errors", "failed", "cancelled"
    ]
    total: int
    done: int
    failed: int
    progress: float = Field(ge=0, le=1)
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    results: list[Result] | None = None

    @classmethod
    def of(cls, status: Status) -> "Task":
        """Say it as the wire does."""
        batch = status.batch
        return cls.model_validate(
            {
                "task_id": batch.id,
                "status": batch.status,
                "total": batch.total,
                "done": status.done,
                "failed": status.failed,
                "progress": status.done / batch.total,
                "created_at": batch.created_at,
                "started_at": batch.started_at,
                "finished_at": batch.finished_at,
                "results": status.results,
            }
        )


class HistoryFilter(BaseModel):
    """Which part of the history; all that is given must match."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    sentiment: Sentiment | None = None
    model: PlainText | None = Field(default=None, max_length=128, description="`name@version`.")
    since: Moment | None = Field(default=None, alias="from", description="Included.")
    until: Moment | None = Field(default=None, alias="to", description="Not included.")
    q: PlainText | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Part of the text, in any case; finds nothing where texts are not stored.",
    )


class HistoryQuery(HistoryFilter):
    """Which page of which part of the history."""

    limit: int = Field(default=20, ge=1, le=100)
    cursor: str | None = Field(default=None, max_length=64)


class HistoryItem(BaseModel):
    """A text that was scored."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    text: str | None = Field(description="Null where texts are not stored.")
    text_sha256: Digest = Field(
        validation_alias="text_hash",
        description="In its place, the SHA-256 of its UTF-8 in hexadecimal.",
    )
    sentiment: Sentiment
    confidence: float
    low_confidence: bool
    model: str
    created_at: datetime


class HistoryPage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[HistoryItem]
    next_cursor: str | None


class ModelSummary(BaseModel):
    """A model that is served."""

    name: str
    version: str
    kind: Literal["linear", "joblib"]
    labels: list[Sentiment]


class ModelMetric(BaseModel):
    """How well it does on one data set that it was not trained on."""

    file: str
    rows: int
    accuracy: float
    log_loss: float


class ModelSource(BaseModel):
    """What it was trained on; the licence is as stated, or `not stated`."""

    file: str
    rows: int
    authors: str
    licence: str


class Model(ModelSummary):
    """A model with what its release says about it; `card` is Markdown."""

    low_confidence_below: float
    metrics: list[ModelMetric]
    sources: list[ModelSource]
    card: str


class ModelPage(BaseModel):
    """The models that are served."""

    items: list[ModelSummary]
    next_cursor: str | None = None


class Health(BaseModel):
    """Whether the service and what it needs work."""

    status: Literal["healthy", "degraded", "unhealthy"]
    api: Literal["ok"] = "ok"
    database: Literal["ok", "down"]
    redis: Literal["ok", "down"]


class Root(BaseModel):
    """Where to go from here."""

    message: str
    version: str
    docs: str
