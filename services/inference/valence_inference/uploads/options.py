"""The options of an upload: the fields of a JSON body, or the parameters given with a file."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from valence_common.models import DEFAULT_PRIORITY
from valence_common.web.field_types import TextWithoutNul
from valence_inference.schemas.fields import STRICT, Text

Priority = Annotated[
    int, Field(ge=1, le=9, description="Priority among your batches: 1 runs first, 9 last.")
]
WebhookUrl = Annotated[
    TextWithoutNul,
    Field(min_length=1, max_length=2048, description="URL that is notified when the batch ends."),
]


class BatchRequest(BaseModel):
    """Texts to score."""

    model_config = STRICT

    texts: Annotated[list[Text], FailFast()] = Field(
        description="1 to 100,000 texts of up to 10,000 characters each.",
        examples=[["I love this product!", "This is terrible, very disappointed."]],
        min_length=1,
    )
    priority: Priority = DEFAULT_PRIORITY
    webhook_url: WebhookUrl | None = None


class BatchOptions(BaseModel):
    """How to read a file of texts, and what to do with it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    column: TextWithoutNul | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="The column with the texts: its name, or for CSV its number, counted from 1."
        " By default `text`, or the only column.",
    )
    header: Literal["true", "false"] = Field(
        default="true", description="CSV: whether the first row contains the column names."
    )
    delimiter: Literal[",", ";", "\t", "tab", "|"] | None = Field(
        default=None,
        description="CSV: the delimiter of the cells; by default detected from the first rows.",
    )
    priority: Priority = DEFAULT_PRIORITY
    webhook_url: WebhookUrl | None = None
