"""The summary of a batch."""

import uuid

from pydantic import BaseModel, ConfigDict, Field

from valence_inference.batches.summary import Reason, Summary
from valence_inference.schemas.batches import TaskStatus
from valence_inference.schemas.fields import Sentiment


class _Part(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ConfidenceBin(_Part):
    """A bin of the histogram, from `from` (inclusive) to `to` (exclusive, but in the last bin)."""

    lower: float = Field(serialization_alias="from")
    upper: float = Field(serialization_alias="to")
    count: int


class SummaryTerm(_Part):
    """A term, its contribution to the logits of the sampled texts, and how many contain it."""

    term: str
    contribution: float
    texts: int


class SummaryTerms(_Part):
    """The most influential terms for each sentiment, the strongest first."""

    sampled: int = Field(description="The number of evenly spaced texts that were explained.")
    positive: list[SummaryTerm]
    negative: list[SummaryTerm]


class TaskSummary(BaseModel):
    """The summary of a batch; of its finished part, if the batch has not ended."""

    task_id: uuid.UUID
    status: TaskStatus
    total: int
    done: int
    failed: int
    labels: dict[Sentiment, int]
    low_confidence: int
    mean_confidence: float | None
    histogram: list[ConfidenceBin] = Field(
        description="A histogram of the confidence in ten equal bins."
    )
    models: list[str] = Field(description="The models that scored the batch.")
    terms: SummaryTerms | None
    terms_reason: Reason | None = Field(description="Why `terms` is null, if it is.")

    @classmethod
    def from_summary(cls, summary: Summary) -> "TaskSummary":
        """Convert a batch's summary."""
        status, terms = summary.status, summary.terms
        has_terms = not isinstance(terms, str)
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
                "terms": terms if has_terms else None,
                "terms_reason": None if has_terms else terms,
            }
        )
