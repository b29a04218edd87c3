"""The query with which an OpenID provider redirects a browser back."""

from pydantic import BaseModel, ConfigDict, Field


class Callback(BaseModel):
    """A code or an error; other parameters, which some providers add, are ignored."""

    model_config = ConfigDict(hide_input_in_errors=True)

    state: str = Field(max_length=256)
    code: str | None = Field(default=None, min_length=1, max_length=4096)
    error: str | None = Field(default=None, max_length=256)
    iss: str | None = Field(default=None, max_length=512, description="Issuer (RFC 9207).")
