"""Batches: status, progress and results."""

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
    """A batch; `progress` goes from 0 to 1."""

    task_id: uuid.UUID
    status: TaskStatus
    total: int
    done: int
    failed: int
    progress: float = Field(ge=0, le=1)
    priority: int = Field(ge=1, le=9, description="Priority among your batches; 1 runs first.")
    rate: float | None = Field(
        description="Texts per second, over the last minute, or over the whole run once the batch"
        " has ended; null until it is known."
    )
    eta_seconds: int | None = Field(
        description="Remaining time at that rate, in seconds; null if it cannot be estimated."
    )
    created_at: datetime
    started_at: datetime | None = Field(
        description="When the first worker started; a retry sets it again."
    )
    finished_at: datetime | None
    results: list[Result] | None = Field(
        default=None,
        description="The results, once the batch has ended, if they are few and small; otherwise"
        " null: get them from `/results`.",
    )

    @classmethod
    def from_status(cls, status: Status) -> "Task":
        """Convert a batch's status."""
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
    """A page of your batches; a batch must match all filters."""

    status: list[TaskStatus] = Field(
        default=[], max_length=20, description="A status; repeat the parameter for several."
    )
    since: Timestamp | None = Field(
        default=None, alias="from", description="Submitted at or after this time."
    )
    until: Timestamp | None = Field(
        default=None, alias="to", description="Submitted before this time."
    )


class TaskItem(Task):
    """A batch without its results."""

    results: Annotated[None, Field(exclude=True)] = None


class TaskPage(BaseModel):
    """Batches, newest first; `next_cursor` is null on the last page."""

    items: list[TaskItem]
    next_cursor: uuid.UUID | None
