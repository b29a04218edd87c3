"""Pages of what is found by its id, as clients ask for them."""

import uuid

from pydantic import BaseModel, ConfigDict, Field


class PageQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    limit: int = Field(default=20, ge=1, le=100, description="Most items of the page.")
    cursor: uuid.UUID | None = Field(
        default=None, description="The `next_cursor` of the page before."
    )
