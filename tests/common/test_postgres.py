"""Postgres idioms: planner switches, snapshots, advisory locks, ids by time, missing users."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from valence_common import postgres
from valence_common.db import Database, new_id
from valence_common.models import Batch, User
from valence_common.problems import InvalidCredential

SWITCHES = ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_sort")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(SecretStr(database_url), pool_size=2, timeout=5)
    yield database
    database.close()


def _settings(session: Session) -> set[str]:
    return {session.execute(text(f"SHOW {name}")).scalar_one() for name in SWITCHES}


def test_index_scans_are_forced_for_one_transaction(database: Database) -> None:
    """The next transaction of the connection plans as usual."""
    with database.transaction() as session:
        postgres.force_index_scans(session)
        assert {"off"} == _settings(session)
    with database.transaction() as session:
        assert {"on"} == _settings(session)


def test_repeatable_read_is_one_snapshot(database: Database) -> None:
    """A transaction does not see what commits after its first query."""
    with database.transaction() as session:
        postgres.repeatable_read(session)
        isolation = session.execute(text("SHOW transaction_isolation")).scalar_one()
    assert "repeatable read" == isolation


def test_lock_is_exclusive_by_name_until_the_transaction_ends(database: Database) -> None:
    """Another transaction cannot take it, but can take a lock of another name."""
    name = f"valence.test.{uuid.uuid4()}"
    with database.transaction() as holder:
        postgres.lock(holder, name)
        assert postgres.try_lock(holder, name)
        with database.transaction() as other:
            assert not postgres.try_lock(other, name)
            assert postgres.try_lock(other, f"{name}.other")
    with database.transaction() as other:
        assert postgres.try_lock(other, name)


def test_insert_for_a_missing_user_is_an_invalid_credential(session: Session) -> None:
    """Only the foreign key counts: other violated constraints stay errors of the code."""
    batch = {"id": new_id(), "user_id": uuid.uuid4(), "total": 1, "status": "pending"}
    with pytest.raises(InvalidCredential), postgres.require_user(), session.begin_nested():
        session.execute(insert(Batch).values(batch))
    user_id = _user(session)
    with pytest.raises(IntegrityError), postgres.require_user(), session.begin_nested():
        session.execute(insert(Batch).values(batch | {"user_id": user_id, "total": 0}))


def _user(session: Session) -> uuid.UUID:
    name = uuid.uuid4().hex
    user = User(username=name, username_key=name, email=name, email_key=name)
    session.add(user)
    session.flush()
    return user.id


def test_first_id_separates_ids_by_time() -> None:
    """Ids of earlier milliseconds are lower, ids of the same millisecond or later are not."""
    before = datetime.now(UTC)
    made = new_id()
    after = datetime.now(UTC) + timedelta(milliseconds=1)
    assert postgres.first_id(before) <= made < postgres.first_id(after)
    assert postgres.first_id(before, offset=timedelta(hours=1)) > made
    assert made > postgres.first_id(before, offset=-timedelta(hours=1))


def test_first_id_is_clamped() -> None:
    """Times outside a UUIDv7's range give the lowest and the highest."""
    year_one = datetime(1, 1, 1, tzinfo=UTC)
    assert uuid.UUID(int=0) == postgres.first_id(year_one, offset=-timedelta(hours=1))
    last = datetime(9999, 12, 31, tzinfo=UTC)
    assert postgres.first_id(last, offset=timedelta(hours=1)) < uuid.UUID(int=(1 << 128) - 1)
