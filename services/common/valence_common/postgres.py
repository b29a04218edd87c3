"""Postgres idioms that several services need: index scans, isolation, locks, ids by time."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg2.errors
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from valence_common.problems import InvalidCredential

# Statistics of a table that fills within a minute mislead the planner: it would scan or sort the
# whole table for a query with a LIMIT, for which an index already has the order.
_FORCE_INDEX_SCANS: Final = text("""
SELECT set_config(name, 'off', true) FROM unnest(ARRAY[
    'enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_sort'
]) AS name
""")
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
_TRY_LOCK: Final = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MILLISECONDS: Final = (1 << 48) - 1


def force_index_scans(session: Session) -> None:
    """Make the planner use indexes, in their order, until the transaction ends."""
    session.execute(_FORCE_INDEX_SCANS)


def repeatable_read(session: Session) -> None:
    """Give all queries of a transaction that just began the same snapshot."""
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def lock(session: Session, name: str) -> None:
    """Wait for the advisory lock of that name, and hold it until the transaction ends."""
    session.execute(_LOCK, {"name": name})


def try_lock(session: Session, name: str) -> bool:
    """Take the advisory lock of that name if it is free; return whether it was."""
    return bool(session.scalar(_TRY_LOCK, {"name": name}))


@contextmanager
def require_user() -> Iterator[None]:
    """Raise `InvalidCredential` when an insert refers to a user who has been erased.

    Only for inserts whose one foreign key is the user's.
    """
    try:
        yield
    except IntegrityError as error:
        if isinstance(error.orig, psycopg2.errors.ForeignKeyViolation):
            raise InvalidCredential from error
        raise


def first_id(moment: datetime, *, offset: timedelta = timedelta()) -> uuid.UUID:
    """Return the lowest UUIDv7 of the millisecond `moment + offset`, clamped to what one can hold.

    A UUIDv7 begins with its time in milliseconds (RFC 9562, section 5.7).
    """
    milliseconds = (moment - _EPOCH + offset) // timedelta(milliseconds=1)
    return uuid.UUID(int=min(max(milliseconds, 0), _MAX_MILLISECONDS) << 80)
