"""The end of a batch: its final state, webhook delivery, audit entry and event in one transaction.

The worker ends a batch by completing its last chunk, the API by cancelling it.
"""

import uuid
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from valence_common.audit import record
from valence_common.db import new_id

# A batch may end without a start: the claim skips setting `started_at` on a locked batch.
_END: Final = text("""
UPDATE batches SET status = :status, finished_at = now(), started_at =
    CASE WHEN :status = 'cancelled' THEN started_at ELSE coalesce(started_at, now()) END
WHERE id = :id
""")

_DELIVER: Final = text("""
INSERT INTO webhook_deliveries (id, batch_id, user_id, event, done, failed, started_at, ended_at)
SELECT :delivery_id, id, user_id, :event, counts.done, counts.failed, started_at, finished_at
FROM batches, LATERAL (
    SELECT coalesce(sum(size), 0) AS done, coalesce(sum(failed), 0) AS failed
    FROM batch_chunks WHERE batch_id = :id AND state = 'done'
) AS counts WHERE id = :id AND webhook_url IS NOT NULL
""")


def end_batch(
    session: Session,
    batch_id: uuid.UUID,
    *,
    user_id: uuid.UUID,
    status: str,
    details: Mapping[str, Any],
) -> None:
    """Set the final state of a batch, which the caller has locked, and announce it."""
    session.execute(_END, {"id": batch_id, "status": status})
    event = f"batch.{status}"
    record(session, event, user_id=user_id, subject_id=batch_id, details=details)
    session.execute(_DELIVER, {"id": batch_id, "delivery_id": new_id(), "event": event})
