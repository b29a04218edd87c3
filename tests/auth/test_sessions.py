"""Sessions: rotation of refresh tokens, grace, reuse, lifetimes."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from valence_auth import accounts, sessions
from valence_auth.sessions import ClientInfo, ForbiddenScope, Grant, SessionRequest
from valence_common.models import AuditEvent, LoginSession, RefreshToken, Revocation, User
from valence_common.problems import NotFound
from valence_common.security import SCOPES

LIFETIME, IDLE = timedelta(days=30), timedelta(days=14)
EVERYTHING = list(SCOPES)
ORDINARY = EVERYTHING[:-1]


@pytest.fixture
def user(session: Session) -> User:
    return _register(session)


def _register(session: Session) -> User:
    name = f"user-{uuid.uuid4().hex[:12]}"
    return accounts.register(
        session, username=name, email=f"{name}@example.com", password_hash="old"
    )


def _open(session: Session, user: User, **options: Any) -> Grant:
    return sessions.open_session(session, user, SessionRequest(LIFETIME, IDLE, **options))


def _refresh(session: Session, grant: Grant | None) -> Grant | None:
    assert grant is not None
    return sessions.refresh(session, grant.refresh_token, idle=IDLE)


def _age(session: Session, seconds: int) -> None:
    """Move all times of use into the past."""
    earlier = RefreshToken.used_at - timedelta(seconds=seconds)
    session.execute(update(RefreshToken).values(used_at=earlier))


def _actions(session: Session, grant: Grant) -> list[str]:
    query = select(AuditEvent.action).where(AuditEvent.subject_id == grant.session_id)
    return list(session.scalars(query.order_by(AuditEvent.id)))


def _is_alive(session: Session, grant: Grant) -> bool:
    login = session.get(LoginSession, grant.session_id, populate_existing=True)
    assert login is not None
    news = select(Revocation).where(Revocation.subject_id == grant.session_id)
    told = session.scalars(news).all()
    assert (login.ended_at is not None) == bool(told), "who ends a session says so"
    return login.ended_at is None


def test_refresh_token_is_exchanged_for_the_next(session: Session, user: User) -> None:
    """Each response has a new token of the same session; only hashes are stored."""
    grants = [_open(session, user)]
    for _ in range(3):
        grant = _refresh(session, grants[-1])
        assert grant is not None
        grants.append(grant)
    assert 1 == len({grant.session_id for grant in grants})
    assert 4 == len({grant.refresh_token for grant in grants})
    assert [ORDINARY] * 4 == [grant.scopes for grant in grants]
    stored = session.scalars(
        select(RefreshToken.token_hash).where(RefreshToken.session_id == grants[0].session_id)
    ).all()
    assert 4 == len(stored)
    assert not any(grant.refresh_token.encode() in stored for grant in grants)


def test_lost_response_can_be_repeated(session: Session, user: User) -> None:
    """Within ten seconds a used token returns a sibling, and either of the two continues."""
    first = _open(session, user)
    _refresh(session, first)
    _age(session, 9)
    again = _refresh(session, first)
    assert _refresh(session, again) is not None
    assert _is_alive(session, first)


def test_one_of_two_siblings_continues(session: Session, user: User) -> None:
    """Once one is used, the other counts as used at once."""
    first = _open(session, user)
    one, other = _refresh(session, first), _refresh(session, first)
    assert _refresh(session, one) is not None
    assert _refresh(session, other) is None
    assert not _is_alive(session, first)


@pytest.mark.parametrize(("seconds", "children"), [(11, 1), (0, 2)])
def test_reuse_ends_the_session(session: Session, user: User, seconds: int, children: int) -> None:
    """After the grace, or once its child was used: no token of the session works."""
    family = [_open(session, user)]
    for _ in range(children):
        grant = _refresh(session, family[-1])
        assert grant is not None
        family.append(grant)
    other = _open(session, user)
    _age(session, seconds)
    assert _refresh(session, family[0]) is None
    assert not _is_alive(session, family[0])
    assert all(_refresh(session, grant) is None for grant in family)
    assert ["session.opened", "session.reuse_detected"] == _actions(session, family[0])
    assert _is_alive(session, other)
    assert _refresh(session, other) is not None


@pytest.mark.parametrize("token", ["", "x", "\u2603" * 50, "a" * 60_000, "a.b.c"])
def test_unknown_token_is_rejected(session: Session, token: str) -> None:
    """Any string that is no token returns None."""
    assert sessions.refresh(session, token, idle=IDLE) is None


def test_idle_and_absolute_lifetimes(session: Session, user: User) -> None:
    """A token lasts until the session is idle too long, and never beyond the session."""
    first = _open(session, user)
    query = select(RefreshToken.expires_at).order_by(RefreshToken.id.desc()).limit(1)
    now = datetime.now(UTC)
    assert abs(session.scalars(query).one() - now - IDLE) < timedelta(seconds=30)
    assert abs(first.expires_at - now - LIFETIME) < timedelta(seconds=30)
    soon = now + timedelta(days=1)
    session.execute(
        update(LoginSession).where(LoginSession.id == first.session_id).values(expires_at=soon)
    )
    second = _refresh(session, first)
    assert second is not None
    assert soon == session.scalars(query).one() == second.expires_at


@pytest.mark.parametrize("model", [RefreshToken, LoginSession])
def test_expired_token_is_rejected(
    session: Session, user: User, model: type[RefreshToken] | type[LoginSession]
) -> None:
    """A token that was idle too long, and one of an expired session."""
    grant = _open(session, user)
    session.execute(update(model).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    session.expire_all()
    assert _refresh(session, grant) is None
    assert ["session.opened"] == _actions(session, grant)


@pytest.mark.parametrize("field", ["is_active", "erased_at"])
def test_disabled_user_cannot_refresh(session: Session, user: User, field: str) -> None:
    """Nor an erased one; the token is not marked as used."""
    grant = _open(session, user)
    setattr(user, field, {"is_active": False, "erased_at": datetime.now(UTC)}[field])
    assert _refresh(session, grant) is None
    setattr(user, field, {"is_active": True, "erased_at": None}[field])
    assert _refresh(session, grant) is not None


def test_session_never_gains_scopes(session: Session, user: User) -> None:
    """Promoted users administer after their next login, demoted ones not after a refresh."""
    ordinary = _open(session, user)
    user.is_superuser = True
    renewed = _refresh(session, ordinary)
    assert renewed is not None
    assert ORDINARY == renewed.scopes
    powerful = _open(session, user)
    assert EVERYTHING == powerful.scopes
    user.is_superuser = False
    renewed = _refresh(session, powerful)
    assert renewed is not None
    assert ORDINARY == renewed.scopes


def test_login_may_request_fewer_scopes(session: Session, user: User) -> None:
    """They narrow the session for its lifetime; unknown and forbidden scopes have one error."""
    narrow = _open(session, user, scopes=["history", "analyze", "history"])
    assert ["analyze", "history"] == narrow.scopes
    renewed = _refresh(session, narrow)
    assert renewed is not None
    assert ["analyze", "history"] == renewed.scopes
    for scopes in (["admin"], ["analyze", "anything"], ["ANALYZE"]):
        with pytest.raises(ForbiddenScope):
            _open(session, user, scopes=scopes)


def test_sessions_are_listed_page_by_page(session: Session, user: User) -> None:
    """Newest first, only the live ones of this user."""
    grants = [_open(session, user, client=ClientInfo("192.0.2.1", "a browser")) for _ in range(6)]
    _open(session, _register(session))
    sessions.end(session, user.id, grants[5].session_id)
    for number, column in ((4, "expires_at"), (3, "last_used_at")):
        login = session.get(LoginSession, grants[number].session_id)
        setattr(login, column, datetime.now(UTC) - timedelta(days=15))
    session.flush()
    one, after = sessions.page(session, user.id, idle=IDLE, limit=2, cursor=None)
    two, end = sessions.page(session, user.id, idle=IDLE, limit=2, cursor=after)
    listed = [login.id for login in (*one, *two)]
    assert [grant.session_id for grant in grants[2::-1]] == listed
    assert end is None
    assert ("192.0.2.1", "a browser") == (one[0].address, one[0].user_agent)


def test_live_sessions_are_limited(session: Session, user: User, monkeypatch) -> None:
    """A login beyond the limit ends the least recently used session, and revokes it."""
    monkeypatch.setattr(sessions, "MAX_LIVE", 2)
    stranger = _open(session, _register(session))
    first, second = _open(session, user), _open(session, user)
    session.get_one(LoginSession, second.session_id).last_used_at -= timedelta(hours=1)
    third = _open(session, user)
    session.flush()
    alive = [_is_alive(session, grant) for grant in (first, second, third, stranger)]
    assert [True, False, True, True] == alive


def test_users_end_their_own_sessions(session: Session, user: User) -> None:
    """Each once, or all except the one to keep."""
    grants = [_open(session, user) for _ in range(3)]
    theirs = _open(session, _register(session))
    for stranger in (theirs.session_id, uuid.uuid4(), None):
        with pytest.raises(NotFound):
            sessions.end(session, user.id, stranger)
    sessions.end(session, user.id, grants[0].session_id)
    with pytest.raises(NotFound):
        sessions.end(session, user.id, grants[0].session_id)
    assert 1 == sessions.end_all(session, user.id, keep=grants[1].session_id)
    assert [False, True, False, True] == [_is_alive(session, g) for g in (*grants, theirs)]
    sessions.log_out_everywhere(session, user.id)
    query = select(AuditEvent).where(AuditEvent.actor_id == user.id)
    events = [(e.action, e.details) for e in session.scalars(query.order_by(AuditEvent.id))]
    assert [("session.ended", {}), ("sessions.ended", {"count": 1})] == events[-2:]
