"""API keys as they are taken here: read from Postgres once, then known for a while."""

import hmac
import time
import uuid
from collections.abc import Collection, Iterator
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from valence_common import api_keys
from valence_common.db import Database
from valence_common.models import ApiKey, User
from valence_common.problems import InvalidCredential
from valence_common.revocations import Revocations
from valence_common.security import Principal
from valence_inference.metering.row_cache import Kept


class Key(NamedTuple):
    """A key; without `principal` it is revoked, or its user may not act."""

    id: uuid.UUID
    user_id: uuid.UUID
    secret_hash: bytes
    per_minute: int | None
    principal: Principal | None


class ApiKeys:
    """Verifies keys; a wrong secret of a known key costs no query."""

    def __init__(self, database: Database, revocations: Revocations):
        self._keys = Kept(database, revocations, _read, patience=database.timeout)

    async def verify(self, key: str) -> Principal:
        """The key's principal; raises `InvalidCredential`, or `Unavailable` if nobody knows."""
        claim = api_keys.read(key)
        row = await self._keys.get(claim.key_id)
        if row is None or not hmac.compare_digest(row.secret_hash, claim.secret_hash):
            raise InvalidCredential
        if row.principal is None or row.principal.expires_at <= time.time():
            raise InvalidCredential
        return row.principal

    async def per_minute(self, key_id: uuid.UUID) -> int | None:
        """The limit of a key that was just verified, if it has one."""
        row = await self._keys.get(key_id)
        return row.per_minute if row else None


def _read(session: Session, key_ids: Collection[uuid.UUID]) -> Iterator[Key]:
    may_act = User.is_active & User.erased_at.is_(None) & ApiKey.revoked_at.is_(None)
    query = select(ApiKey, may_act).join(User, User.id == ApiKey.user_id)
    for row, acts in session.execute(query.where(ApiKey.id.in_(key_ids))):
        principal = Principal(
            row.user_id,
            frozenset(row.scopes),
            row.expires_at.timestamp() if row.expires_at else float("inf"),
            key_id=row.id,
        )
        per_minute, secret_hash = row.per_minute, row.secret_hash
        yield Key(row.id, row.user_id, secret_hash, per_minute, principal if acts else None)
