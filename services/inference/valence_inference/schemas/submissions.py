"""Batches as they are handed in: a JSON body, or the options of a file; and what is answered."""

import uuid
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from valence_common.models import DEFAULT_PRIORITY
from valence_common.web.field_types import TextWithoutNul
from valence_inference.schemas.fields import STRICT, Text

Priority = Annotated[
    int, Field(ge=1, le=9, description="Among one's own batches: 1 is worked on first, 9 last.")
]
WebhookUrl = Annotated[
    TextWithoutNul,
    Field(min_length=1, max_length=2048, description="Who is told when the batch has ended."),
]


class BatchRequest(BaseModel):
    """Many texts to score."""

    model_config = STRICT

    texts: Annotated[list[Text], FailFast()] = Field(
        description="1 to 100,000 texts of up to 10,000 characters each.",
        examples=[["I love this product!", "This is terrible, very disappointed."]],
        min_length=1,
    )
    priority: Priority = DEFAULT_PRIORITY
    webhook_url: WebhookUrl | None = None


class BatchOptions(BaseModel):
    """How to read a file of texts, and what to do with it; a JSON body says that itself."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    column: TextWithoutNul | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="The column with the texts: its name, or for CSV its number from 1. By default"
        " `text`, or the only one.",
    )
    header: Literal["true", "false"] = Field(
        default="true", description="CSV: whether the first row names the columns."
    )
    delimiter: Literal[",", ";", "\t", "tab", "|"] | None = Field(
        default=None,
        description="CSV: what separates cells; by default what the first rows agree on.",
    )
    priority: Priority = DEFAULT_PRIORITY
    webhook_url: WebhookUrl | None = None


class Accepted(BaseModel):
    """A batch that is stored and will be scored."""

    task_id: uuid.UUID
    status: Literal["pending"] = "pending"
    total: int
