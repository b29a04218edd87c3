"""Verification of API keys; rows are read from Postgres and cached."""

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
from valence_inference.metering.row_cache import RowCache


class KeyRow(NamedTuple):
    """An API key; `principal` is None if the key is revoked or its user is not active."""

    id: uuid.UUID
    user_id: uuid.UUID
    secret_hash: bytes
    per_minute: int | None
    principal: Principal | None


class ApiKeyVerifier:
    """Verifies API keys; a wrong secret for a cached key costs no query."""

    def __init__(self, database: Database, revocations: Revocations):
        self._keys = RowCache(database, revocations, _read, timeout=database.timeout)

    async def verify(self, key: str) -> Principal:
        """Return the principal of a key.

        Raises `InvalidCredential`, or `Unavailable` if the key cannot be looked up.
        """
        parsed = api_keys.read(key)
        row = await self._keys.get(parsed.key_id)
        if row is None or not hmac.compare_digest(row.secret_hash, parsed.secret_hash):
            raise InvalidCredential
        if row.principal is None or row.principal.expires_at <= time.time():
            raise InvalidCredential
        return row.principal

    async def per_minute(self, key_id: uuid.UUID) -> int | None:
        """Return the rate limit of a key that was just verified, or None if it has none."""
        row = await self._keys.get(key_id)
        return row.per_minute if row else None


def _read(session: Session, key_ids: Collection[uuid.UUID]) -> Iterator[KeyRow]:
    is_active = User.is_active & User.erased_at.is_(None) & ApiKey.revoked_at.is_(None)
    query = select(ApiKey, is_active).join(User, User.id == ApiKey.user_id)
    for row, active in session.execute(query.where(ApiKey.id.in_(key_ids))):
        principal = Principal(
            row.user_id,
            frozenset(row.scopes),
            row.expires_at.timestamp() if row.expires_at else float("inf"),
            key_id=row.id,
        )
        per_minute, secret_hash = row.per_minute, row.secret_hash
        yield KeyRow(row.id, row.user_id, secret_hash, per_minute, principal if active else None)
