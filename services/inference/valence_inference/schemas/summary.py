"""A batch summed up."""

import uuid

from pydantic import BaseModel, ConfigDict, Field

from valence_inference.batches.summary import Reason, Summary
from valence_inference.schemas.batches import TaskStatus
from valence_inference.schemas.fields import Sentiment


class _Part(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ConfidenceBin(_Part):
    """How many answers have a confidence from `from` up to `to`, which only the last includes."""

    lower: float = Field(serialization_alias="from")
    upper: float
    count: int


class SummaryTerm(_Part):
    """A term, what it added to the logits of the sampled texts, and how many of them have it."""

    term: str
    contribution: float
    texts: int


class SummaryTerms(_Part):
    """The terms that spoke most for each side, the strongest first."""

    sampled: int = Field(description="Texts that they were found in, evenly spread.")
    positive: list[SummaryTerm]
    negative: list[SummaryTerm]


class TaskSummary(BaseModel):
    """A batch in a few numbers; of one that has not ended, what is done so far."""

    task_id: uuid.UUID
    status: TaskStatus
    total: int
    done: int
    failed: int
    labels: dict[Sentiment, int]
    low_confidence: int
    mean_confidence: float | None
    histogram: list[ConfidenceBin] = Field(description="Of confidence, in ten equal bins.")
    models: list[str] = Field(description="The models that scored it.")
    terms: SummaryTerms | None
    terms_reason: Reason | None = Field(description="Why there are no terms, where there are none.")

    @classmethod
    def from_summary(cls, summary: Summary) -> "TaskSummary":
        """Say it as the wire does."""
        status, terms = summary.status, summary.terms
        known = not isinstance(terms, str)
        return cls.model_validate(
            {
                "task_id": status.batch.id,
                "status": status.batch.status,
                "total": status.batch.total,
                "done": status.done,
                "failed": status.failed,
                "labels": summary.labels,
                "low_confidence": summary.low_confidence,
                "mean_confidence": summary.mean_confidence,
                "histogram": summary.histogram,
                "models": summary.models,
                "terms": terms if known else None,
                "terms_reason": None if known else terms,
            }
        )
