"""The settings of the inference service."""

from pathlib import Path
from typing import Final

from pydantic import Field, PositiveFloat, PositiveInt

from valence_common.settings import BatchSettings, WebSettings
from valence_ml import DEFAULT_MODEL

MAX_BODY_BYTES: Final = 256 * 1024
"""The largest request body, and WebSocket message; a batch has a setting of its own."""


class Settings(WebSettings, BatchSettings):
    """The settings of the inference service alone."""

    model_dir: Path = Field(
        default=DEFAULT_MODEL, description="Folder of the model release to serve."
    )
    batch_body_bytes: PositiveInt = Field(
        default=32 * 1024 * 1024,
        description="Largest body of a batch, in bytes; a process holds up to four of them.",
    )
    max_text_characters: PositiveInt = Field(
        default=10_000,
        description="Longest text, in characters; a worker must score a chunk of such texts within"
        " its lease.",
    )
    max_batch_texts: PositiveInt = Field(default=100_000, description="Largest batch, in texts.")
    chunk_texts: PositiveInt = Field(
        default=500, description="Largest chunk, in texts; a worker claims one chunk at a time."
    )
    inline_results: PositiveInt = Field(
        default=1_000,
        description="Largest batch, in texts, whose status includes its results (if about 1 MiB or"
        " less).",
    )
    history_required: bool = Field(
        default=True,
        description="Answer 503 if a prediction cannot be recorded. If off, answer 200 with"
        " `recorded: false`.",
    )
    max_streams: PositiveInt = Field(
        default=1_000, description="Open event streams and WebSockets per process."
    )
    max_user_streams: PositiveInt = Field(
        default=20, description="Open event streams and WebSockets per user and process."
    )
    socket_idle_seconds: PositiveFloat = Field(
        default=120.0, description="A WebSocket is closed after this long without a message."
    )
    docs_enabled: bool = Field(default=True, description="Serve `/docs` and `/openapi.json`.")
