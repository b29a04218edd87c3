"""The settings of the inference service."""

from pathlib import Path
from typing import Final

from pydantic import Field, PositiveFloat, PositiveInt

from valence_common.settings import BatchSettings, WebSettings
from valence_ml import DEFAULT_MODEL

MAX_BODY_BYTES: Final = 256 * 1024
"""The largest request body, and WebSocket message; a batch has a setting of its own."""


class Settings(WebSettings, BatchSettings):
    """What inference needs beyond any web service and the worker."""

    model_dir: Path = Field(
        default=DEFAULT_MODEL, description="Folder of the model release to serve."
    )
    batch_body_bytes: PositiveInt = Field(
        default=32 * 1024 * 1024, description="Largest body of a batch, in bytes."
    )
    max_text_characters: PositiveInt = Field(
        default=10_000, description="Longest text that is scored."
    )
    max_batch_texts: PositiveInt = Field(default=100_000, description="Most texts in one batch.")
    chunk_texts: PositiveInt = Field(
        default=500, description="Texts that a worker takes from a batch at a time."
    )
    inline_results: PositiveInt = Field(
        default=1_000,
        description="Largest batch whose results come with its status, unless they are heavy.",
    )
    history_required: bool = Field(
        default=True,
        description="Refuse to answer (503) when a prediction cannot be recorded;"
        " off: answer with `recorded: false`.",
    )
    max_streams: PositiveInt = Field(
        default=1_000, description="Event streams and WebSockets that one process keeps open."
    )
    max_user_streams: PositiveInt = Field(
        default=20, description="Event streams and WebSockets of one user, in each process."
    )
    socket_idle_seconds: PositiveFloat = Field(
        default=120.0, description="A WebSocket that sends no message for so long is closed."
    )
    docs_enabled: bool = Field(default=True, description="Serve /docs and /openapi.json.")
