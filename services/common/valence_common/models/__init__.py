"""The tables of Valence: all of them, and nothing that decides.

Ids are UUIDv7 made in Python; times are `timestamptz`; every foreign key says what happens when
its parent goes; states are held by CHECK constraints. Migrations live in the root `alembic/`.
"""

from valence_common.models.accounts import (
    ApiKey,
    AuditEvent,
    Identity,
    LoginSession,
    RefreshToken,
    Revocation,
    User,
)
from valence_common.models.base import Base
from valence_common.models.batches import (
    DEFAULT_PRIORITY,
    IDEMPOTENCY_TTL,
    TERMINAL,
    Batch,
    BatchChunk,
    BatchResult,
    IdempotencyKey,
)
from valence_common.models.events import EVENT_NUMBERS, Event
from valence_common.models.history import NO_KEY, Prediction, Usage
from valence_common.models.webhooks import WebhookAttempt, WebhookDelivery, WebhookSecret

__all__ = [
    "DEFAULT_PRIORITY",
    "EVENT_NUMBERS",
    "IDEMPOTENCY_TTL",
    "NO_KEY",
    "TERMINAL",
    "ApiKey",
    "AuditEvent",
    "Base",
    "Batch",
    "BatchChunk",
    "BatchResult",
    "Event",
    "IdempotencyKey",
    "Identity",
    "LoginSession",
    "Prediction",
    "RefreshToken",
    "Revocation",
    "Usage",
    "User",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookSecret",
]
