"""Revoked sessions and API keys, and invalidated users, known to every process within seconds.

Each process polls Postgres once a second on a dedicated connection, so neither Redis nor a busy
pool delays it. During an outage of Postgres, known revocations stay in force.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from valence_common.db import Database
from valence_common.log import log_fields
from valence_common.models import Revocation
from valence_common.problems import Unavailable
from valence_common.security import LEEWAY_SECONDS, MAX_LIFETIME_SECONDS

POLL_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 2.0

# A row carries a time before its commit and is visible only after it, so each poll looks back
# further than a transaction can last. No token issued before the horizon is still valid.
OVERLAP: Final = timedelta(seconds=60)
HORIZON: Final = timedelta(seconds=MAX_LIFETIME_SECONDS + 2 * LEEWAY_SECONDS) + OVERLAP

Listener = Callable[[uuid.UUID], None]


def revoke(session: Session, credential_ids: Iterable[uuid.UUID]) -> None:
    """Revoke sessions or API keys: after the commit, every process rejects them within seconds."""
    _publish(session, credential_ids)


def invalidate(session: Session, user_id: uuid.UUID) -> None:
    """Make every process drop its cached data of a user, whose limits or state changed.

    The user's credentials stay valid.
    """
    _publish(session, [user_id])


def _publish(session: Session, subject_ids: Iterable[uuid.UUID]) -> None:
    # Clock time, not transaction start: a later commit must carry a later timestamp, or pollers
    # skip it.
    now = session.scalars(select(func.clock_timestamp())).one()
    session.add_all(Revocation(subject_id=each, revoked_at=now) for each in subject_ids)


class Revocations:
    """The changes that this process has read; `id in revocations` tests a credential."""

    def __init__(self, url: SecretStr):
        self._database = Database(url, pool_size=1, timeout=TIMEOUT_SECONDS)
        self._revoked: dict[uuid.UUID, datetime] = {}
        self._listeners: list[Listener] = []
        self._polled_at: float | None = None

    def __contains__(self, credential_id: uuid.UUID | None) -> bool:
        return credential_id in self._revoked

    @property
    def loaded(self) -> bool:
        """Whether Postgres was read at least once; until then no credential can be accepted."""
        return self._polled_at is not None

    @property
    def age(self) -> float:
        """Seconds since the last complete poll; infinite before the first."""
        return float("inf") if self._polled_at is None else time.monotonic() - self._polled_at

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with the id of each revoked credential and invalidated user."""
        self._listeners.append(listener)

    async def poll_forever(self) -> None:
        """Poll every second until cancelled.

        Never stops by itself: a stopped poller would keep accepting revoked credentials.
        """
        while True:
            try:
                await self.poll()
            except Unavailable as error:
                structlog.get_logger().warning("unavailable", dependency=error.dependency)
            except Exception as error:  # noqa: BLE001 - the next poll may succeed
                structlog.get_logger().error("revocations_not_read", **log_fields(error))
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Read the latest changes; raise `Unavailable` when Postgres does not answer."""
        started_at = time.monotonic()
        # After an outage, `age` covers the gap.
        since = HORIZON if self._polled_at is None else OVERLAP + timedelta(seconds=self.age)
        for subject_id, revoked_at in await self._database.run(
            _recent_changes, min(since, HORIZON)
        ):
            if self._revoked.get(subject_id) != revoked_at:
                self._revoked[subject_id] = revoked_at
                for listener in self._listeners:
                    listener(subject_id)
        self._polled_at = started_at
        self._drop_expired()

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def _drop_expired(self) -> None:
        oldest = datetime.now(UTC) - HORIZON
        for subject_id in [s for s, at in self._revoked.items() if at < oldest]:
            del self._revoked[subject_id]


def _recent_changes(session: Session, since: timedelta) -> list[tuple[uuid.UUID, datetime]]:
    recent = Revocation.revoked_at > func.now() - since
    query = select(Revocation.subject_id, func.max(Revocation.revoked_at)).where(recent)
    rows = session.execute(query.group_by(Revocation.subject_id))
    return [(subject_id, revoked_at) for subject_id, revoked_at in rows]
