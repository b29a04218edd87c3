"""Responses of the routes outside the versioned API."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The state of the service and its dependencies."""

    status: Literal["healthy", "degraded", "unhealthy"]
    api: Literal["ok"] = "ok"
    database: Literal["ok", "down"]
    redis: Literal["ok", "down"]


class Root(BaseModel):
    """The service's name and version, and the path of its documentation."""

    message: str
    version: str
    docs: str
