"""The response to a submitted batch."""

import uuid
from typing import Literal

from pydantic import BaseModel


class Accepted(BaseModel):
    """A batch that was stored and will be scored."""

    task_id: uuid.UUID
    status: Literal["pending"] = "pending"
    total: int
