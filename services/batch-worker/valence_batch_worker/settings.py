"""The settings of the batch worker."""

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from valence_common.settings import Settings as CommonSettings
from valence_ml import DEFAULT_MODEL


class Settings(CommonSettings):
    """What the worker needs beyond any process."""

    model_dir: Path = Field(
        default=DEFAULT_MODEL, description="Folder of the model release to score with."
    )
    concurrency: int = Field(
        default=0, ge=0, description="Scoring processes of one worker; 0 is one a core."
    )
    lease_seconds: PositiveFloat = Field(
        default=30,
        description="Time after which a silent worker's chunk goes to another; well above the"
        " longest time that one chunk takes, or it would look poisonous.",
    )
    max_attempts: PositiveInt = Field(
        default=3, description="Attempts at a chunk before it is cut to find the poisonous text."
    )
    sweep_seconds: PositiveFloat = Field(
        default=2, description="Pause between two looks for expired leases and unheard work."
    )
    soft_shutdown_seconds: PositiveFloat = Field(
        default=5, description="Time that running chunks get after SIGTERM."
    )
