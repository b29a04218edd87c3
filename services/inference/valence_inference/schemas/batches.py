"""Batches: how far they are, what came of them."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from valence_common.web.field_types import Timestamp
from valence_common.web.pagination import PageQuery
from valence_inference.batches.status import Status
from valence_inference.schemas.results import Result

TaskStatus = Literal[
    "pending", "processing", "completed", "completed_with_errors", "failed", "cancelled"
]


class Task(BaseModel):
    """A batch; `progress` goes from 0 to 1, `results` come with small batches that have ended."""

    task_id: uuid.UUID
    status: TaskStatus
    total: int
    done: int
    failed: int
    progress: float = Field(ge=0, le=1)
    priority: int = Field(ge=1, le=9, description="Among one's own batches; 1 comes first.")
    rate: float | None = Field(
        description="Texts per second: of the last minute, of one that has ended the average;"
        " null until it is known."
    )
    eta_seconds: int | None = Field(
        description="Seconds that are left at that rate; null where nobody can tell."
    )
    created_at: datetime
    started_at: datetime | None = Field(description="When work on it began; anew by a retry.")
    finished_at: datetime | None
    results: list[Result] | None = Field(
        default=None,
        description="Of a batch that has ended, if they are few and not heavy; else null, and"
        " `/results` has them.",
    )

    @classmethod
    def from_status(cls, status: Status) -> "Task":
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
                "priority": batch.priority,
                "rate": status.rate,
                "eta_seconds": status.eta_seconds,
                "created_at": batch.created_at,
                "started_at": batch.started_at,
                "finished_at": batch.finished_at,
                "results": status.results,
            }
        )


class TasksQuery(PageQuery):
    """Which of one's batches; all that is given must match."""

    status: list[TaskStatus] = Field(
        default=[], max_length=20, description="One, or several by repeating it."
    )
    since: Timestamp | None = Field(
        default=None, alias="from", description="Accepted then or later."
    )
    until: Timestamp | None = Field(default=None, alias="to", description="Accepted before.")


class TaskItem(Task):
    """A batch without its results."""

    results: Annotated[None, Field(exclude=True)] = None


class TaskPage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[TaskItem]
    next_cursor: uuid.UUID | None
