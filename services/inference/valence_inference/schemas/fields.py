"""Words that several of the service's schemas use."""

from typing import Annotated, Literal

from pydantic import ConfigDict, StringConstraints

Sentiment = Literal["positive", "negative"]
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]

STRICT = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
"""Of what clients send: nothing unknown, nothing converted, nothing said back."""
