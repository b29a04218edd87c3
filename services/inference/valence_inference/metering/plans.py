"""The limits of each user: the plan from the settings, with the overrides in the user's row."""

import uuid
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from valence_common.db import Database
from valence_common.models import User
from valence_common.problems import Unavailable
from valence_common.revocations import Revocations
from valence_common.setting_types import DEFAULT_PLAN, Plan
from valence_inference.metering.row_cache import RowCache

TIMEOUT_SECONDS: Final = 0.25
"""Added to the timeout for recording in a frozen Postgres, a request still ends within 3 s."""


class _Row(NamedTuple):
    id: uuid.UUID
    plan: str
    per_minute: int | None
    burst: int | None
    texts_per_day: int | None

    @property
    def user_id(self) -> uuid.UUID:
        return self.id


class UserPlans:
    """The plan of each user, cached; the default plan while Postgres is unavailable."""

    def __init__(
        self, database: Database, revocations: Revocations, plans: Mapping[str, Plan]
    ) -> None:
        self._users = RowCache(database, revocations, _read, timeout=TIMEOUT_SECONDS)
        self._plans = plans

    @property
    def unavailable(self) -> bool:
        """Whether Postgres failed to answer a moment ago."""
        return self._users.unavailable

    async def get(self, user_id: uuid.UUID) -> Plan:
        """Return the limits that apply to a user."""
        default = self._plans[DEFAULT_PLAN]
        try:
            row = await self._users.get(user_id)
        except Unavailable:
            return default
        if row is None:
            return default
        plan = self._plans.get(row.plan, default)
        if row[2:] == (None, None, None):
            return plan
        return Plan(
            per_minute=plan.per_minute if row.per_minute is None else row.per_minute,
            burst=plan.burst if row.burst is None else row.burst,
            texts_per_day=plan.texts_per_day if row.texts_per_day is None else row.texts_per_day,
        )


def _read(session: Session, user_ids: Collection[uuid.UUID]) -> Iterator[_Row]:
    query = select(User.id, User.plan, User.per_minute, User.burst, User.texts_per_day)
    for row in session.execute(query.where(User.id.in_(user_ids))):
        yield _Row(*row)
