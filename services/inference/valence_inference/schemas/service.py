"""What stands outside the versioned API."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """Whether the service and what it needs work."""

    status: Literal["healthy", "degraded", "unhealthy"]
    api: Literal["ok"] = "ok"
    database: Literal["ok", "down"]
    redis: Literal["ok", "down"]


class Root(BaseModel):
    """Where to go from here."""

    message: str
    version: str
    docs: str
