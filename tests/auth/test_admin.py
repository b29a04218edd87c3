"""Administration: who may, what is found, what each act does and leaves in the audit log."""

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
from valence_auth.admin import Filter, Limits, NotOneself, UserNotFound
from valence_common.db import Database, new_id
from valence_common.models import ApiKey, AuditEvent, LoginSession, Revocation, User
from valence_common.problems import DomainError, Forbidden

HOUR = timedelta(hours=1)
PLAIN = Limits("default", None, None, None)


@pytest.fixture
def admin(session: Session) -> User:
    """Who acts."""
    return make(session, is_superuser=True)


@pytest.fixture
def user(session: Session) -> User:
    """Whom it is done to."""
    return make(session)


def log_in(session: Session, user: User, **columns: Any) -> uuid.UUID:
    """A session of theirs; its id."""
    values = {"expires_at": datetime.now(UTC) + HOUR, "scopes": []} | columns
    opened = LoginSession(id=new_id(), user_id=user.id, **values)
    session.add(opened)
    session.flush()
    return opened.id


def give_key(session: Session, user: User, **columns: Any) -> None:
    session.add(ApiKey(user_id=user.id, name="k", secret_hash=b"x", scopes=[], **columns))
    session.flush()


def told(session: Session) -> set[uuid.UUID]:
    """Whom there is news of."""
    return set(session.scalars(select(Revocation.subject_id)))


def acts(session: Session, user: User) -> list[tuple[uuid.UUID | None, str]]:
    """Who did what to a user since they registered, oldest first."""
    since = (AuditEvent.subject_id == user.id, AuditEvent.action != "account.registered")
    events = select(AuditEvent).where(*since).order_by(AuditEvent.id)
    return [(event.actor_id, event.action) for event in session.scalars(events)]


def change(session: Session, admin: User, user: User, **state: bool) -> auth_admin.Record:
    wanted = {"is_active": None, "is_superuser": None} | state
    return auth_admin.change(session, admin.id, user.id, **wanted)


def search(session: Session, admin: User, **only: Any) -> list[str]:
    found, _ = auth_admin.users(session, admin.id, Filter(**only), limit=100, cursor=None)
    return [user.username for user in found]


def test_search_finds_parts_of_names(session: Session, admin: User) -> None:
    """Prefix or middle, any case, name or address; `%`, `_` and `\\` stand for themselves."""
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
    """Filters join; what was erased is not there."""
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
    """Also when somebody registers between two pages."""
    tag = uuid.uuid4().hex[:8]
    names = [make(session, f"u{n}-{tag}").username for n in range(5)]
    seen, cursor = [], None
    for page in range(3):
        found, cursor = auth_admin.users(session, admin.id, Filter(q=tag), limit=2, cursor=cursor)
        seen += [user.username for user in found]
        make(session, f"late{page}-{tag}")
    assert (names[::-1], None) == (seen, cursor)


def test_a_record_counts_what_is_alive(session: Session, admin: User, user: User) -> None:
    """Ended and expired sessions, revoked and expired keys do not act any more."""
    now = datetime.now(UTC)
    log_in(session, user)
    log_in(session, user, ended_at=now)
    log_in(session, user, expires_at=now - HOUR)
    give_key(session, user)
    give_key(session, user, expires_at=now + HOUR)
    give_key(session, user, expires_at=now - HOUR)
    give_key(session, user, revoked_at=now)
    record = auth_admin.user(session, admin.id, user.id)
    assert (user.id, 1, 2) == (record.user.id, record.live_sessions, record.live_keys)
    assert [] == acts(session, user), "reading is not audited"


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
    """Each ends the sessions, tells everybody, and is in the audit log; once."""
    user = make(session, **before)
    opened = log_in(session, user)
    record = change(session, admin, user, **state)
    [(name, value)] = state.items()
    assert (value, 0) == (getattr(record.user, name), record.live_sessions)
    assert {opened, user.id} <= told(session)
    assert [(admin.id, action)] == acts(session, user)
    again = log_in(session, user)
    assert 1 == change(session, admin, user, **state).live_sessions, "it was so already"
    assert again not in told(session)
    assert [(admin.id, action)] == acts(session, user)


def test_two_changes_at_once(session: Session, admin: User, user: User) -> None:
    """Both are done, and both are in the audit log."""
    change(session, admin, user, is_active=False, is_superuser=True)
    assert (False, True) == (user.is_active, user.is_superuser)
    assert [(admin.id, "user.disabled"), (admin.id, "user.promoted")] == acts(session, user)


def test_nobody_takes_away_their_own_rights(session: Session, admin: User) -> None:
    """So that somebody is left who can; what changes nothing is allowed."""
    for work in (
        lambda: change(session, admin, admin, is_active=False),
        lambda: change(session, admin, admin, is_superuser=False),
        lambda: change(session, admin, admin, is_active=True, is_superuser=False),
        lambda: auth_admin.erase(session, admin.id, admin.id),
    ):
        with pytest.raises(NotOneself):
            work()
    change(session, admin, admin, is_active=True, is_superuser=True)
    assert [] == acts(session, admin)


def test_limits(session: Session, admin: User, user: User) -> None:
    """They are kept, told to everybody, and audited with what was before; once."""
    limits = Limits("default", 5, 0, None)
    record = auth_admin.set_limits(session, admin.id, user.id, limits)
    assert (5, 0, None) == (record.user.per_minute, record.user.burst, record.user.texts_per_day)
    assert user.id in told(session)
    auth_admin.set_limits(session, admin.id, user.id, limits)
    changed = AuditEvent.action == "user.limits_changed"
    [event] = session.scalars(select(AuditEvent).where(AuditEvent.subject_id == user.id, changed))
    assert (admin.id, "user.limits_changed") == (event.actor_id, event.action)
    assert {"before": PLAIN._asdict(), "after": limits._asdict()} == event.details


def test_sessions_end(session: Session, admin: User, user: User) -> None:
    """All of theirs, and nobody else's; their account stays as it is."""
    opened, other = log_in(session, user), log_in(session, admin)
    auth_admin.end_sessions(session, admin.id, user.id)
    assert opened in told(session)
    assert other not in told(session)
    assert (admin.id, "user.sessions_ended") == acts(session, user)[-1]
    assert user.is_active


def test_erase(session: Session, admin: User, user: User) -> None:
    """Nobody can act for it, it is not found any more, and who did it is in the audit log."""
    name, opened = user.username, log_in(session, user)
    auth_admin.erase(session, admin.id, user.id)
    assert {opened, user.id} <= told(session)
    assert accounts.find(session, name) is None
    assert [admin.id] == [actor for actor, _ in acts(session, user)]
    with pytest.raises(UserNotFound):
        auth_admin.user(session, admin.id, user.id)


def _calls(session: Session, actor: uuid.UUID, user: uuid.UUID) -> list[Callable[[], object]]:
    """Every noun, for this actor and this user."""
    today = datetime.now(UTC).date()
    return [
        lambda: auth_admin.user(session, actor, user),
        lambda: auth_admin.change(session, actor, user, is_active=None, is_superuser=None),
        lambda: auth_admin.set_limits(session, actor, user, PLAIN),
        lambda: auth_admin.end_sessions(session, actor, user),
        lambda: auth_admin.erase(session, actor, user),
        lambda: auth_admin.users(session, actor, Filter(), limit=1, cursor=None),
        lambda: audit.page(session, actor, audit.Filter(), limit=1, cursor=None),
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
def test_the_database_decides_who_may(session: Session, user: User, state: dict[str, Any]) -> None:
    """Whatever a token says: users, disabled superusers, erased ones and nobody are refused."""
    actor = make(session, **state)
    for work in _calls(session, actor.id, user.id) + _calls(session, new_id(), user.id):
        with pytest.raises(Forbidden):
            work()


def test_unknown_users(session: Session, admin: User) -> None:
    """An id that nobody has is one answer for every act."""
    for work in _calls(session, admin.id, new_id())[:5]:
        with pytest.raises(UserNotFound):
            work()


def test_two_who_disable_each_other(own_database_url: str) -> None:
    """One after the other: the second is no superuser any more, and one is always left."""
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
    """Let each actor change their target, all together; what came of each."""
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
