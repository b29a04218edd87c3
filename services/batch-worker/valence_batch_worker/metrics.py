"""What the worker counts: in its children (written to a shared folder) and by its sweeper."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

CHUNKS = Counter(
    "valence_batch_chunks", "Attempts at chunks, by how they ended.", ["outcome"], registry=None
)
ATTEMPTS = Counter(
    "valence_batch_attempts",
    "Attempts at chunks that began, by their number; 4 is the fourth and any later one.",
    ["number"],
    registry=None,
)
TEXTS = Counter("valence_batch_texts", "Texts scored and stored.", registry=None)
CHUNK_SECONDS = Histogram(
    "valence_batch_chunk_duration_seconds",
    "Time from a claim to its commit.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=None,
)
BATCHES = Counter(
    "valence_batches_ended",
    "Batches that ended with their last chunk, by final status; who cancels ends them elsewhere.",
    ["status"],
    registry=None,
)
LEASES_EXPIRED = Counter(
    "valence_batch_leases_expired", "Chunks taken back from silent workers.", registry=None
)
CHUNKS_WAITING = Gauge(
    "valence_batch_chunks_waiting",
    "Chunks that could be claimed, counted up to a bound.",
    multiprocess_mode="mostrecent",
    registry=None,
)
CHUNKS_RUNNING = Gauge(
    "valence_batch_chunks_running",
    "Chunks that all workers together have in work, counted up to a bound.",
    multiprocess_mode="mostrecent",
    registry=None,
)
OLDEST_CHUNK_SECONDS = Gauge(
    "valence_batch_oldest_chunk_seconds",
    "Time for which the oldest of the chunks that could be claimed has waited.",
    multiprocess_mode="mostrecent",
    registry=None,
)
EVENTS_PUBLISHED = Counter(
    "valence_events_told", "Events that went to the stream, repetitions included.", registry=None
)
EVENTS_WAITING = Gauge(
    "valence_events_waiting",
    "Events that the stream lacks, counted up to a bound.",
    multiprocess_mode="mostrecent",
    registry=None,
)
EVENTS_OLDEST_SECONDS = Gauge(
    "valence_events_oldest_waiting_seconds",
    "Age of the oldest event that the stream lacks; 0 if there is none.",
    multiprocess_mode="mostrecent",
    registry=None,
)
WEBHOOK_ATTEMPTS = Counter(
    "valence_webhook_attempts",
    "Attempts at webhooks, by how they ended.",
    ["outcome"],
    registry=None,
)
WEBHOOKS_DUE = Gauge(
    "valence_webhook_deliveries_due",
    "Webhooks that should be on their way, counted up to a bound.",
    multiprocess_mode="mostrecent",
    registry=None,
)
WEBHOOKS_LATE_SECONDS = Gauge(
    "valence_webhook_deliveries_late_seconds",
    "How long the one that is due longest has waited.",
    multiprocess_mode="mostrecent",
    registry=None,
)
ROWS_DELETED = Counter(
    "valence_rows_erased",
    "Rows deleted, because an account was erased or the retention of their kind is over.",
    ["reason"],
    registry=None,
)
DEPENDENCY_UP = Gauge(
    "valence_dependency_up",
    "Whether a dependency answered when last asked.",
    ["dependency"],
    multiprocess_mode="mostrecent",
    registry=None,
)


def render() -> bytes:
    """All processes' figures, and the parent's own as a process."""
    shared, own = CollectorRegistry(), CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    ProcessCollector(registry=own)
    return generate_latest(shared) + generate_latest(own)
