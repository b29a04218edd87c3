"""The settings of the batch worker."""

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from valence_common.settings import BatchSettings
from valence_ml import DEFAULT_MODEL


class Settings(BatchSettings):
    """What the worker needs beyond any process and inference."""

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
    user_chunks: PositiveInt = Field(
        default=8,
        description="Most chunks of one user that all workers together have in work, so that a"
        " large batch leaves room for others.",
    )
    sweep_seconds: PositiveFloat = Field(
        default=2, description="Pause between two looks for expired leases and unheard work."
    )
    relay_seconds: PositiveFloat = Field(
        default=1, description="Pause between two looks for events to tell other systems."
    )
    soft_shutdown_seconds: PositiveFloat = Field(
        default=5, description="Time that running chunks get after SIGTERM."
    )
    webhook_timeout_seconds: PositiveFloat = Field(
        default=10, description="Longest time that one attempt at a webhook may take, name and all."
    )
    retain_history_days: NonNegativeInt = Field(
        default=0, description="Days after which a prediction leaves the history; 0 is never."
    )
    retain_batches_days: NonNegativeInt = Field(
        default=0, description="Days after its end that a batch is deleted with all of it; 0 never."
    )
    retain_sessions_days: NonNegativeInt = Field(
        default=30, description="Days after its end that a login session is deleted; 0 is never."
    )
    retain_usage_days: NonNegativeInt = Field(
        default=400, description="Days that daily counts of use are kept; 0 is for ever."
    )
    retain_audit_days: NonNegativeInt = Field(
        default=400, description="Days that the audit log is kept; 0 is for ever."
    )
    retain_events_days: NonNegativeInt = Field(
        default=7,
        description="Days that events are kept for other systems, in Postgres and the Redis Stream;"
        " 0 is for ever, in Redis's memory, too.",
    )
