"""The results of a batch."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from valence_inference.batches.export import Format
from valence_inference.schemas.fields import Sentiment

MAX_INDEX = 2**31 - 2


class Result(BaseModel):
    """The result for one text of a batch; if `sentiment` is null, `error` says why."""

    model_config = ConfigDict(from_attributes=True)

    index: int
    text: str | None = Field(description="Null where texts are not stored.")
    sentiment: Sentiment | None
    confidence: float | None
    low_confidence: bool | None
    model: str | None
    error: str | None


class ResultItem(Result):
    """A result with its row of the uploaded file."""

    row: dict[str, Any] | None = Field(
        default=None,
        description="The original columns by name, including the text's; absent for a batch that"
        " was a list of texts, and where texts are not stored.",
    )


class ResultPage(BaseModel):
    """Results in the order of the texts; `next_cursor` is null on the last page."""

    items: list[ResultItem]
    next_cursor: int | None


class ResultsQuery(BaseModel):
    """A range of results, and their format."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    format: Format = Field(
        default="json", description="`json` is paginated; `ndjson` and `csv` are one stream."
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        description="Maximum number of items of a JSON page; 100 by default.",
    )
    cursor: int | None = Field(
        default=None, ge=0, le=MAX_INDEX, description="The `next_cursor` of the previous page."
    )
    start: int | None = Field(
        default=None,
        alias="from",
        ge=0,
        le=MAX_INDEX,
        description="The first index of a stream. Above 0, CSV has no header, so it can be appended"
        " to an earlier download. CSV of a cancelled file batch cannot be resumed (409): it has no"
        " index column.",
    )

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        if self.format == "json" and self.start is not None:
            raise ValueError("`from` is for ndjson and csv; use `cursor` with json")
        if self.format != "json" and (self.limit is not None or self.cursor is not None):
            raise ValueError("`limit` and `cursor` are for json; use `from` with streams")
        return self
