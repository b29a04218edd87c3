"""Batches: what they are made of, how far they are, what came of them."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, FailFast, Field

from valence_inference.batches import Status
from valence_inference.schemas.words import CLOSED, Sentiment, Text


class BatchRequest(BaseModel):
    """Many texts to score."""

    model_config = CLOSED

    texts: Annotated[list[Text], FailFast()] = Field(
        description="1 to 100,000 texts of up to 10,000 characters each.",
        examples=[["I love this product!", "This is terrible, very disappointed."]],
        min_length=1,
    )
    webhook_url: str | None = Field(
        default=None,
        description="Where to tell how the batch ended (see `/webhooks/secret`).",
        examples=["https://example.com/hooks/valence"],
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
