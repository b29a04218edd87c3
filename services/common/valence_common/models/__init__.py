"""All tables of Valence, without any logic.

Ids are UUIDv7, generated in Python. Times are `timestamptz`. Every foreign key declares what
happens when its parent is deleted. CHECK constraints enforce states. Migrations live in the root
folder `alembic/`.
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
from valence_common.models.base import Base, Entity
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
    "Entity",
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
