"""Metrics of the worker: its child processes write them to a folder that the parent reads."""

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
    "valence_batch_chunks", "Attempts at chunks, by outcome.", ["outcome"], registry=None
)
ATTEMPTS = Counter(
    "valence_batch_attempts",
    "Started attempts at chunks, by their number; 4 is the fourth and any later one.",
    ["number"],
    registry=None,
)
TEXTS = Counter("valence_batch_texts", "Texts scored and stored.", registry=None)
CHUNK_SECONDS = Histogram(
    "valence_batch_chunk_duration_seconds",
    "Time from the claim of a chunk to the commit of its results.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=None,
)
BATCHES = Counter(
    "valence_batches_ended",
    "Batches that ended with their last chunk, by final status; cancelled ones are not counted.",
    ["status"],
    registry=None,
)
LEASES_EXPIRED = Counter(
    "valence_batch_leases_expired", "Chunks requeued because their lease expired.", registry=None
)
CHUNKS_WAITING = Gauge(
    "valence_batch_chunks_waiting",
    "Claimable chunks, counted up to a limit.",
    multiprocess_mode="mostrecent",
    registry=None,
)
CHUNKS_RUNNING = Gauge(
    "valence_batch_chunks_running",
    "Chunks that all workers together are processing, counted up to a limit.",
    multiprocess_mode="mostrecent",
    registry=None,
)
OLDEST_CHUNK_SECONDS = Gauge(
    "valence_batch_oldest_chunk_seconds",
    "Time for which the oldest claimable chunk has waited.",
    multiprocess_mode="mostrecent",
    registry=None,
)
EVENTS_PUBLISHED = Counter(
    "valence_events_told", "Events published to the stream, repetitions included.", registry=None
)
EVENTS_WAITING = Gauge(
    "valence_events_waiting",
    "Events not yet in the stream, counted up to a limit.",
    multiprocess_mode="mostrecent",
    registry=None,
)
EVENTS_OLDEST_SECONDS = Gauge(
    "valence_events_oldest_waiting_seconds",
    "Age of the oldest event that is not yet in the stream; 0 if there is none.",
    multiprocess_mode="mostrecent",
    registry=None,
)
WEBHOOK_ATTEMPTS = Counter(
    "valence_webhook_attempts",
    "Attempts at webhook deliveries, by outcome.",
    ["outcome"],
    registry=None,
)
WEBHOOKS_DUE = Gauge(
    "valence_webhook_deliveries_due",
    "Webhook deliveries that are due, counted up to a limit.",
    multiprocess_mode="mostrecent",
    registry=None,
)
WEBHOOKS_LATE_SECONDS = Gauge(
    "valence_webhook_deliveries_late_seconds",
    "How long the most overdue webhook delivery has waited.",
    multiprocess_mode="mostrecent",
    registry=None,
)
ROWS_DELETED = Counter(
    "valence_rows_erased",
    "Rows deleted by erasure, retention or on the owner's request.",
    ["reason"],
    registry=None,
)
DEPENDENCY_UP = Gauge(
    "valence_dependency_up",
    "Whether a dependency answered the last health check.",
    ["dependency"],
    multiprocess_mode="mostrecent",
    registry=None,
)


def render() -> bytes:
    """Return the metrics of all processes in the text format, and the parent's process metrics."""
    shared, own = CollectorRegistry(), CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    ProcessCollector(registry=own)
    return generate_latest(shared) + generate_latest(own)
