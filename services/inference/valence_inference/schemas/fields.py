"""Field types and configuration that several schemas share."""

from typing import Annotated, Literal

from pydantic import ConfigDict, StringConstraints

Sentiment = Literal["positive", "negative"]
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]

STRICT = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
"""Strict: no unknown fields, no coercion, no input in errors."""
