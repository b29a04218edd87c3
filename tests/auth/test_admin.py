"""Administration: authorisation, search, changes and their audit entries."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from support.rows import query
from support.users import make
from valence_auth import accounts, audit
from valence_auth import admin as auth_admin
from valence_auth.admin import SelfActionForbidden, UserFilter, UserLimits, UserNotFound
from valence_common.db import Database, new_id
from valence_common.models import ApiKey, AuditEvent, LoginSession, Revocation, User
from valence_common.problems import DomainError, Forbidden

HOUR = timedelta(hours=1)
PLAIN = UserLimits("default", None, None, None)


@pytest.fixture
def admin(session: Session) -> User:
    """The actor."""
    return make(session, is_superuser=True)


@pytest.fixture
def user(session: Session) -> User:
    """The subject."""
    return make(session)


def log_in(session: Session, user: User, **columns: Any) -> uuid.UUID:
    """Open a session for a user; return its id."""
    values = {"expires_at": datetime.now(UTC) + HOUR, "scopes": []} | columns
    opened = LoginSession(id=new_id(), user_id=user.id, **values)
    session.add(opened)
    session.flush()
    return opened.id


def give_key(session: Session, user: User, **columns: Any) -> None:
    session.add(ApiKey(user_id=user.id, name="k", secret_hash=b"x", scopes=[], **columns))
    session.flush()


def invalidated(session: Session) -> set[uuid.UUID]:
    """Return the ids of revoked credentials and invalidated users."""
    return set(session.scalars(select(Revocation.subject_id)))


def entries(session: Session, user: User) -> list[tuple[uuid.UUID | None, str]]:
    """Return a user's audit entries since they registered, oldest first."""
    since = (AuditEvent.subject_id == user.id, AuditEvent.action != "account.registered")
    events = select(AuditEvent).where(*since).order_by(AuditEvent.id)
    return [(event.actor_id, event.action) for event in session.scalars(events)]


def change(session: Session, admin: User, user: User, **state: bool) -> auth_admin.UserDetails:
    wanted = {"is_active": None, "is_superuser": None} | state
    return auth_admin.change(session, admin.id, user.id, **wanted)


def search(session: Session, admin: User, **only: Any) -> list[str]:
    found, _ = auth_admin.list_users(session, admin.id, UserFilter(**only), limit=100, cursor=None)
    return [user.username for user in found]


def test_search_finds_parts_of_names(session: Session, admin: User) -> None:
    r"""Any part, in any case, of username or address; `%`, `_` and `\` are literal."""
    tag = uuid.uuid4().hex[:8]
    names = [f"Ada.{tag}", f"grace_{tag}", f"graceX{tag}"]
    for name in names:
        make(session, name)
    newest_first = names[::-1]
    for q in (tag, tag.upper(), f"{tag}@example", f"{tag}@EXAMPLE.com"):
        assert newest_first == search(session, admin, q=q), q
    assert [names[0]] == search(session, admin, q=f"aDa.{tag}")
    assert [names[0]] == search(session, admin, q=f"\uff21da.{tag}")
    assert [names[1]] == search(session, admin, q=f"e_{tag}")
    for q in (f"%{tag}", f"{tag}%", f"\\{tag}", f"e%{tag}", "' OR 1=1 --"):
        assert [] == search(session, admin, q=q), q


def test_search_by_state(session: Session, admin: User) -> None:
    """Filters combine; erased users are not found."""
    tag = uuid.uuid4().hex[:8]
    make(session, f"plain-{tag}")
    make(session, f"off-{tag}", is_active=False)
    make(session, f"super-{tag}", is_superuser=True)
    make(session, f"gone-{tag}", erased_at=datetime.now(UTC))
    for only, expected in (
        ({}, ["super", "off", "plain"]),
        ({"is_active": True}, ["super", "plain"]),
        ({"is_active": False}, ["off"]),
        ({"is_superuser": True}, ["super"]),
        ({"is_superuser": False}, ["off", "plain"]),
        ({"is_superuser": True, "is_active": False}, []),
    ):
        assert [f"{name}-{tag}" for name in expected] == search(session, admin, q=tag, **only)


def test_pages_hold_each_user_once(session: Session, admin: User) -> None:
    """Also when a user registers between two pages."""
    tag = uuid.uuid4().hex[:8]
    names = [make(session, f"u{n}-{tag}").username for n in range(5)]
    seen, cursor = [], None
    for page in range(3):
        found, cursor = auth_admin.list_users(
            session, admin.id, UserFilter(q=tag), limit=2, cursor=cursor
        )
        seen += [user.username for user in found]
        make(session, f"late{page}-{tag}")
    assert (names[::-1], None) == (seen, cursor)


def test_details_count_live_credentials(session: Session, admin: User, user: User) -> None:
    """Ended and expired sessions, revoked and expired keys do not count."""
    now = datetime.now(UTC)
    log_in(session, user)
    log_in(session, user, ended_at=now)
    log_in(session, user, expires_at=now - HOUR)
    give_key(session, user)
    give_key(session, user, expires_at=now + HOUR)
    give_key(session, user, expires_at=now - HOUR)
    give_key(session, user, revoked_at=now)
    record = auth_admin.get_user(session, admin.id, user.id)
    assert (user.id, 1, 2) == (record.user.id, record.live_sessions, record.live_keys)
    assert [] == entries(session, user), "reading is not audited"


@pytest.mark.parametrize(
    ("before", "state", "action"),
    [
        ({}, {"is_active": False}, "user.disabled"),
        ({"is_active": False}, {"is_active": True}, "user.enabled"),
        ({}, {"is_superuser": True}, "user.promoted"),
        ({"is_superuser": True}, {"is_superuser": False}, "user.demoted"),
    ],
)
def test_changes(
    session: Session,
    admin: User,
    before: dict[str, bool],
    state: dict[str, bool],
    action: str,
) -> None:
    """Each ends the sessions, invalidates the user, and has one audit entry."""
    user = make(session, **before)
    opened = log_in(session, user)
    record = change(session, admin, user, **state)
    [(name, value)] = state.items()
    assert (value, 0) == (getattr(record.user, name), record.live_sessions)
    assert {opened, user.id} <= invalidated(session)
    assert [(admin.id, action)] == entries(session, user)
    again = log_in(session, user)
    assert 1 == change(session, admin, user, **state).live_sessions, "it was so already"
    assert again not in invalidated(session)
    assert [(admin.id, action)] == entries(session, user)


def test_two_changes_at_once(session: Session, admin: User, user: User) -> None:
    """Both are made, and both are in the audit log."""
    change(session, admin, user, is_active=False, is_superuser=True)
    assert (False, True) == (user.is_active, user.is_superuser)
    assert [(admin.id, "user.disabled"), (admin.id, "user.promoted")] == entries(session, user)


def test_administrators_keep_their_own_rights(session: Session, admin: User) -> None:
    """So one administrator always remains; a request that changes nothing is allowed."""
    for work in (
        lambda: change(session, admin, admin, is_active=False),
        lambda: change(session, admin, admin, is_superuser=False),
        lambda: change(session, admin, admin, is_active=True, is_superuser=False),
        lambda: auth_admin.erase(session, admin.id, admin.id),
    ):
        with pytest.raises(SelfActionForbidden):
            work()
    change(session, admin, admin, is_active=True, is_superuser=True)
    assert [] == entries(session, admin)


def test_limits(session: Session, admin: User, user: User) -> None:
    """They are stored, invalidate the user, and have one audit entry with the old values."""
    limits = UserLimits("default", 5, 0, None)
    record = auth_admin.set_limits(session, admin.id, user.id, limits)
    assert (5, 0, None) == (record.user.per_minute, record.user.burst, record.user.texts_per_day)
    assert user.id in invalidated(session)
    auth_admin.set_limits(session, admin.id, user.id, limits)
    changed = AuditEvent.action == "user.limits_changed"
    [event] = session.scalars(select(AuditEvent).where(AuditEvent.subject_id == user.id, changed))
    assert (admin.id, "user.limits_changed") == (event.actor_id, event.action)
    assert {"before": PLAIN._asdict(), "after": limits._asdict()} == event.details


def test_sessions_end(session: Session, admin: User, user: User) -> None:
    """All sessions of the user and no others; the account stays unchanged."""
    opened, other = log_in(session, user), log_in(session, admin)
    auth_admin.end_sessions(session, admin.id, user.id)
    assert opened in invalidated(session)
    assert other not in invalidated(session)
    assert (admin.id, "user.sessions_ended") == entries(session, user)[-1]
    assert user.is_active


def test_erase(session: Session, admin: User, user: User) -> None:
    """The account cannot act and is not found any more; the audit entry names the actor."""
    name, opened = user.username, log_in(session, user)
    auth_admin.erase(session, admin.id, user.id)
    assert {opened, user.id} <= invalidated(session)
    assert accounts.find(session, name) is None
    assert [admin.id] == [actor for actor, _ in entries(session, user)]
    with pytest.raises(UserNotFound):
        auth_admin.get_user(session, admin.id, user.id)


def _calls(session: Session, actor: uuid.UUID, user: uuid.UUID) -> list[Callable[[], object]]:
    """Return a call of every function, for this actor and this user."""
    today = datetime.now(UTC).date()
    return [
        lambda: auth_admin.get_user(session, actor, user),
        lambda: auth_admin.change(session, actor, user, is_active=None, is_superuser=None),
        lambda: auth_admin.set_limits(session, actor, user, PLAIN),
        lambda: auth_admin.end_sessions(session, actor, user),
        lambda: auth_admin.erase(session, actor, user),
        lambda: auth_admin.list_users(session, actor, UserFilter(), limit=1, cursor=None),
        lambda: audit.page(session, actor, audit.AuditFilter(), limit=1, cursor=None),
        lambda: auth_admin.read_usage(
            session, actor, today, today, user_id=None, limit=1, cursor=None
        ),
    ]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"is_superuser": True, "is_active": False},
        {"is_superuser": True, "erased_at": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
def test_actor_must_be_a_superuser_in_the_database(
    session: Session, user: User, state: dict[str, Any]
) -> None:
    """Users, disabled and erased superusers and unknown ids are rejected, whatever the token."""
    actor = make(session, **state)
    for work in _calls(session, actor.id, user.id) + _calls(session, new_id(), user.id):
        with pytest.raises(Forbidden):
            work()


def test_unknown_users(session: Session, admin: User) -> None:
    """Every function has the same error for an unknown id."""
    for work in _calls(session, admin.id, new_id())[:5]:
        with pytest.raises(UserNotFound):
            work()


def test_superusers_who_disable_each_other(own_database_url: str) -> None:
    """The second is no longer a superuser, so one always remains."""
    database = Database(SecretStr(own_database_url), pool_size=4, timeout=10)
    for _ in range(5):
        with database.transaction() as session:
            one, two = (make(session, is_superuser=True).id for _ in range(2))
        disable, demote = {"is_active": False}, {"is_superuser": False}
        outcomes = _at_once(database, (one, two, disable), (two, one, demote))
        assert ["Forbidden", "done"] == sorted(outcomes)
        able = "SELECT count(*) FROM users WHERE is_active AND is_superuser AND id IN (:a, :b)"
        assert [(1,)] == query(own_database_url, able, a=one, b=two)
    database.close()


def _at_once(database: Database, *changes: tuple[uuid.UUID, uuid.UUID, dict[str, bool]]) -> list:
    """Let each actor change their target concurrently; return the outcomes."""
    barrier = threading.Barrier(len(changes))

    def act(one: tuple[uuid.UUID, uuid.UUID, dict[str, bool]]) -> str:
        actor, target, state = one
        wanted = {"is_active": None, "is_superuser": None} | state
        barrier.wait()
        try:
            with database.transaction() as session:
                auth_admin.change(session, actor, target, **wanted)
        except DomainError as error:
            return type(error).__name__
        return "done"

    with ThreadPoolExecutor(len(changes)) as pool:
        return list(pool.map(act, changes))
