"""Which sessions and keys may not act any more, known to every process within seconds.

Each process reads the news from Postgres once a second, on a connection of its own, so neither
Redis nor a busy pool can delay it. While Postgres is away, what is known stays refused.
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

# Rows are dated before their transaction ends and seen after: look back further than any of ours
# may last. Nothing signed before the horizon is valid any more.
OVERLAP: Final = timedelta(seconds=60)
HORIZON: Final = timedelta(seconds=MAX_LIFETIME_SECONDS + 2 * LEEWAY_SECONDS) + OVERLAP

Listener = Callable[[uuid.UUID], None]


def revoke(session: Session, subject_ids: Iterable[uuid.UUID]) -> None:
    """Tell every process, once the transaction commits, of sessions or keys that have ended.

    For the id of a user it says that their limits or state changed: what is kept of it is dropped.
    """
    # Not when the transaction began: of two about one user, whose row both lock, the one that
    # waited is the later, or who has heard of the other would find no news in it.
    now = session.scalars(select(func.clock_timestamp())).one()
    session.add_all(Revocation(subject_id=each, revoked_at=now) for each in subject_ids)


class Revocations:
    """The news that this process has heard; `in` asks for one session, key or user."""

    def __init__(self, url: SecretStr):
        self._database = Database(url, pool_size=1, timeout=TIMEOUT_SECONDS)
        self._revoked: dict[uuid.UUID, datetime] = {}
        self._listeners: list[Listener] = []
        self._looked_at: float | None = None

    def __contains__(self, subject_id: uuid.UUID | None) -> bool:
        return subject_id in self._revoked

    @property
    def loaded(self) -> bool:
        """Whether Postgres was read at least once; before that nobody can be trusted."""
        return self._looked_at is not None

    @property
    def age(self) -> float:
        """Seconds since the news was last complete; infinite before the first time."""
        return float("inf") if self._looked_at is None else time.monotonic() - self._looked_at

    def subscribe(self, listener: Listener) -> None:
        """Call back for each subject that there is news of."""
        self._listeners.append(listener)

    async def poll_forever(self) -> None:
        """Look every second until cancelled; whatever goes wrong, who stopped would trust on."""
        while True:
            try:
                await self.poll()
            except Unavailable as error:
                structlog.get_logger().warning("unavailable", dependency=error.dependency)
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                structlog.get_logger().error("revocations_not_read", **log_fields(error))
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Read the news; raises `Unavailable` when Postgres does not answer."""
        asked_at = time.monotonic()
        # After an outage the gap is read as well.
        since = HORIZON if self._looked_at is None else OVERLAP + timedelta(seconds=self.age)
        for subject_id, revoked_at in await self._database.run(
            _recent_changes, min(since, HORIZON)
        ):
            if self._revoked.get(subject_id) != revoked_at:
                self._revoked[subject_id] = revoked_at
                for listener in self._listeners:
                    listener(subject_id)
        self._looked_at = asked_at
        self._forget()

    def close(self) -> None:
        """Give up the connection."""
        self._database.close()

    def _forget(self) -> None:
        oldest = datetime.now(UTC) - HORIZON
        for subject_id in [s for s, at in self._revoked.items() if at < oldest]:
            del self._revoked[subject_id]


def _recent_changes(session: Session, since: timedelta) -> list[tuple[uuid.UUID, datetime]]:
    recent = Revocation.revoked_at > func.now() - since
    query = select(Revocation.subject_id, func.max(Revocation.revoked_at)).where(recent)
    rows = session.execute(query.group_by(Revocation.subject_id))
    return [(subject_id, revoked_at) for subject_id, revoked_at in rows]
