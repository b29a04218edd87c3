"""The history: pages with exact cursors, rejection of invented ones, deletion by time."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from support.batches import make_user
from valence_common.db import Database
from valence_common.models import Prediction, User
from valence_common.problems import Unprocessable
from valence_inference.history import Cursor, History, HistoryFilter, _read_page

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@given(moment=MOMENTS, identifier=st.uuids())
def test_cursors_come_back(moment: datetime, identifier: uuid.UUID) -> None:
    """A cursor encodes a time in microseconds and an id in 32 characters."""
    cursor = Cursor(moment, identifier)
    assert cursor == Cursor.decode(cursor.encode())
    assert 32 == len(cursor.encode())


@given(text=st.text(max_size=64) | st.text("AZaz09-_=", min_size=31, max_size=33))
def test_made_up_cursors_are_refused_or_harmless(text: str) -> None:
    """Any string decodes to a time that Postgres supports and an id, or gets a 422 without it."""
    try:
        cursor = Cursor.decode(text)
    except Unprocessable as error:
        assert "query.cursor" == error.errors[0].field  # noqa: PT017 - either may come
    else:
        assert cursor == Cursor.decode(cursor.encode())


@pytest.mark.parametrize("raw", ["", "x", "=" * 32, "_" * 32, "A" * 31, "A" * 36, "é" * 32])
def test_cursors_of_another_form_are_refused(raw: str) -> None:
    """Wrong length, wrong alphabet, and times beyond the year 9999."""
    with pytest.raises(Unprocessable):
        Cursor.decode(raw)


def test_pages_of_equal_times_have_no_gap_and_no_repeat(session: Session) -> None:
    """Rows of the same microsecond, as a batch creates them, are ordered by their ids."""
    user = User(
        username="emmy", username_key="emmy", email="a@b.example", email_key="a@b.example",
        password_hash="x",
    )  # fmt: skip
    session.add(user)
    session.flush()
    now = datetime.now(UTC)
    for number in range(25):
        session.add(
            Prediction(
                user_id=user.id,
                created_at=now + timedelta(microseconds=number // 10),
                text=str(number),
                sentiment="positive",
                confidence=0.9,
                low_confidence=False,
                model="m@1",
            )
        )
    session.flush()
    seen, after = [], None
    while rows := _read_page(session, user.id, HistoryFilter(), 7, after):
        seen += rows
        after = Cursor.decode(Cursor(rows[-1].created_at, rows[-1].id).encode())
    assert 25 == len(seen) == len({row.id for row in seen})
    assert sorted(seen, key=lambda row: (row.created_at, row.id), reverse=True) == seen
    assert [] == _read_page(session, uuid.uuid4(), HistoryFilter(), 7, None)


def test_delete_is_limited_to_the_times_of_the_filter(database: Database) -> None:
    """It takes what is from `since` on and before `until`, and nothing that is recorded later."""
    with database.transaction() as session:
        user_id = make_user(session)
        now = session.scalars(select(func.now())).one()
        at = {hour: now + timedelta(hours=hour) for hour in (-4, -3, -2, -1, 1, 2)}
        for created_at in list(at.values())[:-1]:
            session.add(
                Prediction(
                    user_id=user_id,
                    created_at=created_at,
                    text="good",
                    sentiment="positive",
                    confidence=0.9,
                    low_confidence=False,
                    model="m@1",
                )
            )
    history = History(database, required=True)

    def left_by(**filters: datetime) -> list[int]:
        asyncio.run(history.delete(user_id, HistoryFilter(**filters)))
        with database.transaction() as session:
            rows = set(session.scalars(select(Prediction.created_at)))
        return [hour for hour in at if at[hour] in rows]

    assert [-4, -1, 1] == left_by(since=at[-3], until=at[-1])
    assert [-1, 1] == left_by(until=at[-1])
    assert [1] == left_by(until=at[2])
    assert [1] == left_by()
