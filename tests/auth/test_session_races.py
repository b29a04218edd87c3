"""Concurrent refreshes, logins and changes of accounts."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from valence_auth import accounts, logins, sessions
from valence_auth.sessions import Grant, SessionRequest
from valence_common.db import Database
from valence_common.models import AuditEvent, LoginSession, RefreshToken, User

IDLE = timedelta(days=14)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(SecretStr(database_url), pool_size=8, timeout=10)
    yield database
    database.close()


def _open(session: Session, user: User) -> Grant:
    return sessions.open_session(session, user, SessionRequest(timedelta(days=30), IDLE))


def _refresh(session: Session, grant: Grant) -> Grant | None:
    return sessions.refresh(session, grant.refresh_token, idle=IDLE)


def _committed(database: Database) -> tuple[User, Grant]:
    name = f"user-{uuid.uuid4().hex[:12]}"
    names = {"username": name, "email": f"{name}@example.com"}
    with database.transaction() as session:
        user = accounts.register(session, password_hash="old", **names)
    with database.transaction() as session:
        return user, _open(session, user)


def _alive(session: Session, user: User) -> list[uuid.UUID]:
    found, _ = sessions.page(session, user.id, idle=IDLE, limit=100, cursor=None)
    return [login.id for login in found]


def test_parallel_refreshes_are_siblings(database: Database) -> None:
    """Twenty concurrent refreshes are served in turn, as retries; then one of them continues."""
    _, first = _committed(database)

    def refresh(_: int) -> Grant | None:
        with database.transaction() as session:
            return _refresh(session, first)

    with ThreadPoolExecutor(8) as pool:
        grants = list(pool.map(refresh, range(20)))
    assert None not in grants
    with database.transaction() as session:
        tokens = session.scalars(
            select(RefreshToken).where(RefreshToken.session_id == first.session_id)
        ).all()
        assert 21 == len(tokens)
        assert 1 == sum(token.used_at is not None for token in tokens)
        assert {None} < {token.parent_id for token in tokens}
        assert _refresh(session, grants[7]) is not None
        assert _refresh(session, grants[8]) is None


def test_parallel_reuse_is_audited_once(database: Database) -> None:
    """However many requests reuse a token, the session ends once, with one audit entry."""
    user, first = _committed(database)
    with database.transaction() as session:
        _refresh(session, first)
        session.flush()
        old = RefreshToken.session_id == first.session_id
        earlier = RefreshToken.used_at - timedelta(minutes=5)
        session.execute(update(RefreshToken).where(old).values(used_at=earlier))

    def refresh(_: int) -> Grant | None:
        with database.transaction() as session:
            return _refresh(session, first)

    with ThreadPoolExecutor(8) as pool:
        assert [None] * 20 == list(pool.map(refresh, range(20)))
    with database.transaction() as session:
        query = select(AuditEvent.action).where(AuditEvent.subject_id == first.session_id)
        events = session.scalars(query.order_by(AuditEvent.id)).all()
        assert ["session.opened", "session.reuse_detected"] == events
        assert [] == _alive(session, user)


def test_waiting_refresh_sees_earlier_uses(database: Database) -> None:
    """A token that is used, and expires, while its refresh waits counts as used."""
    _, first = _committed(database)
    mine = LoginSession.id == first.session_id
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            session.scalars(select(LoginSession).where(mine).with_for_update()).one()

            def refresh() -> Grant | None:
                with database.transaction() as late:
                    return _refresh(late, first)

            waiting = pool.submit(refresh)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
            used_at = datetime.now(UTC) - timedelta(minutes=1)
            token = update(RefreshToken).where(RefreshToken.session_id == first.session_id)
            session.execute(token.values(used_at=used_at))
        assert waiting.result(timeout=10) is None


@pytest.mark.parametrize("change", ["disable", "password"])
def test_login_sees_a_change_of_the_account(database: Database, change: str) -> None:
    """A login that was verified before the account changed opens no session after it."""
    user, first = _committed(database)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            if change == "disable":
                session.execute(update(User).where(User.id == user.id).values(is_active=False))
                sessions.end_all(session, user.id)
            else:
                logins.change_password(session, user, "new", keep=first.session_id)

            def log_in() -> None:
                with database.transaction() as late:
                    _open(late, user)

            late_login = pool.submit(log_in)
            with pytest.raises(TimeoutError):
                late_login.result(timeout=0.3)  # it waits for the change
        assert isinstance(late_login.exception(timeout=10), sessions.UserChanged)
    with database.transaction() as session:
        expected = [] if change == "disable" else [first.session_id]
        assert expected == _alive(session, user)


def test_change_ends_the_session_of_a_concurrent_login(database: Database) -> None:
    """The other order: a session that is being opened is ended with the rest."""
    user, _ = _committed(database)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            _open(session, user)
            session.flush()

            def change() -> int:
                with database.transaction() as late:
                    return sessions.end_all(late, user.id)

            ended = pool.submit(change)
            with pytest.raises(TimeoutError):
                ended.result(timeout=0.3)
        assert 2 == ended.result(timeout=10)
    with database.transaction() as session:
        assert [] == _alive(session, user)
