"""The settings of the batch worker."""

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from valence_common.settings import BatchSettings
from valence_ml import DEFAULT_MODEL


class Settings(BatchSettings):
    """The worker's settings, beyond those that it shares with inference."""

    model_dir: Path = Field(
        default=DEFAULT_MODEL, description="Folder of the model release to score with."
    )
    concurrency: int = Field(
        default=0, ge=0, description="Scoring processes per worker; 0 means one per core."
    )
    lease_seconds: PositiveFloat = Field(
        default=30,
        description="Time until a silent worker's chunk goes to another worker; must be well above"
        " the longest time that a chunk takes, or good chunks run out of attempts.",
    )
    max_attempts: PositiveInt = Field(
        default=3,
        description="Attempts at a chunk before it is bisected to find the text that fails.",
    )
    user_chunks: PositiveInt = Field(
        default=8,
        description="Concurrency limit per user, in chunks over all workers, so that a large batch"
        " leaves room for other users.",
    )
    sweep_seconds: PositiveFloat = Field(
        default=2, description="Interval at which expired leases and waiting work are polled."
    )
    relay_seconds: PositiveFloat = Field(
        default=1, description="Interval at which new events are polled and published."
    )
    soft_shutdown_seconds: PositiveFloat = Field(
        default=5, description="Time for running chunks after SIGTERM."
    )
    webhook_timeout_seconds: PositiveFloat = Field(
        default=10, description="Timeout of one webhook attempt, including the DNS lookup."
    )
    retain_history_days: NonNegativeInt = Field(
        default=0, description="Retention of predictions in the history; 0 keeps them for ever."
    )
    retain_batches_days: NonNegativeInt = Field(
        default=0,
        description="Retention of a batch and its results after its end; 0 keeps them for ever.",
    )
    retain_sessions_days: NonNegativeInt = Field(
        default=30, description="Retention of a login session after its end; 0 keeps it for ever."
    )
    retain_usage_days: NonNegativeInt = Field(
        default=400, description="Retention of daily usage counts; 0 keeps them for ever."
    )
    retain_audit_days: NonNegativeInt = Field(
        default=400, description="Retention of the audit log; 0 keeps it for ever."
    )
    retain_events_days: NonNegativeInt = Field(
        default=7,
        description="Retention of events, in Postgres and the Redis Stream; 0 keeps them for ever,"
        " also in Redis's memory.",
    )
