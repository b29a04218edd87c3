"""Results: which of them, in which form, and what one of them says."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from valence_inference.batches.export import Format
from valence_inference.schemas.fields import Sentiment

MAX_INDEX = 2**31 - 2


class Result(BaseModel):
    """The answer for one text of a batch; without `sentiment`, `error` says why."""

    model_config = ConfigDict(from_attributes=True)

    index: int
    text: str | None = Field(description="Null where texts are not stored.")
    sentiment: Sentiment | None
    confidence: float | None
    low_confidence: bool | None
    model: str | None
    error: str | None


class ResultItem(Result):
    """The same, with the row of the file that the batch came in."""

    row: dict[str, Any] | None = Field(
        default=None,
        description="The original columns by their names, the text's among them; absent for a"
        " batch that came as a list of texts, and where texts are not stored.",
    )


class ResultPage(BaseModel):
    """In the order of the texts; `next_cursor` is null on the last page."""

    items: list[ResultItem]
    next_cursor: int | None


class ResultsQuery(BaseModel):
    """Which results, in which form."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    format: Format = Field(
        default="json", description="`json` comes in pages, `ndjson` and `csv` as one stream."
    )
    limit: int | None = Field(
        default=None, ge=1, le=1_000, description="Most items of a JSON page; 100 unless given."
    )
    cursor: int | None = Field(
        default=None, ge=0, le=MAX_INDEX, description="The `next_cursor` of the page before."
    )
    start: int | None = Field(
        default=None,
        alias="from",
        ge=0,
        le=MAX_INDEX,
        description="Of a stream, the first index that is wanted. Above 0 a CSV has no line of"
        " names, so that it can be joined to what came before; of a cancelled batch it may be"
        " refused (409), since it tells no index.",
    )

    @model_validator(mode="after")
    def _belongs_to_its_form(self) -> Self:
        if self.format == "json" and self.start is not None:
            raise ValueError("`from` is for ndjson and csv; json has `cursor`")
        if self.format != "json" and (self.limit is not None or self.cursor is not None):
            raise ValueError("`limit` and `cursor` are for json; streams have `from`")
        return self
