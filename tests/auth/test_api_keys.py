"""API keys: creation, storage, rotation, revocation."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from support.batches import make_user
from valence_auth import api_keys as auth_api_keys
from valence_auth.schemas.api_keys import KeyRequest
from valence_common import api_keys
from valence_common.models import ApiKey, AuditEvent, Revocation
from valence_common.problems import InsufficientScope, InvalidCredential
from valence_common.security import Principal

ALL = ("analyze", "batch", "history")
NO_GRACE = timedelta(0)


def _principal(session: Session, *scopes: str) -> Principal:
    return Principal(make_user(session), frozenset(scopes or ALL), 0.0, session_id=uuid.uuid4())


def _make(session: Session, principal: Principal, **options: object) -> auth_api_keys.NewApiKey:
    request = {"name": "a key", "scopes": None, "expires_at": None, "per_minute": None} | options
    return auth_api_keys.create(session, principal, **request)


def _news(session: Session, subject_id: uuid.UUID) -> int:
    query = select(func.count()).where(Revocation.subject_id == subject_id)
    return session.execute(query).scalar_one()


def _events(session: Session, subject_id: uuid.UUID) -> list[tuple[str, dict[str, object]]]:
    query = select(AuditEvent.action, AuditEvent.details).order_by(AuditEvent.id)
    return [tuple(r) for r in session.execute(query.where(AuditEvent.subject_id == subject_id))]


@given(key_id=st.uuids())
def test_key_is_parsed_as_created(key_id: uuid.UUID) -> None:
    """A key contains its id and a secret, and has one form."""
    key, secret_hash = api_keys.make(key_id)
    assert api_keys.ParsedKey(key_id, secret_hash) == api_keys.read(key)
    for other in (key[:-1], key + "0", key.upper(), f" {key}", key[:-1] + chr(ord(key[-1]) ^ 1)):
        with pytest.raises(InvalidCredential):
            api_keys.read(other)


@given(position=st.integers(3, 91), digit=st.sampled_from("0123456789abcdef"))
def test_mistyped_key_is_rejected(position: int, digit: str) -> None:
    """Any changed digit breaks the checksum."""
    key, _ = api_keys.make(uuid.uuid4())
    changed = key[:position] + digit + key[position + 1 :]
    if changed != key:
        with pytest.raises(InvalidCredential):
            api_keys.read(changed)


def test_only_a_hash_is_stored(session: Session) -> None:
    """The row has the SHA-256 of the secret; the event has neither that nor the name."""
    made = _make(session, _principal(session), name="nightly")
    assert api_keys.read(made.key) == api_keys.ParsedKey(made.row.id, made.row.secret_hash)
    secret = made.key[36:-8]
    columns = [repr(getattr(made.row, column.key)) for column in ApiKey.__table__.columns]
    assert not [value for value in columns if secret in value or made.key in value]
    assert [("key.created", {"scopes": list(ALL)})] == _events(session, made.row.id)


def test_key_has_at_most_the_scopes_of_its_session(session: Session) -> None:
    """By default all of them that keys may have."""
    admin = _principal(session, *ALL, "admin")
    assert list(ALL) == _make(session, admin).row.scopes
    some = _principal(session, "analyze", "history")
    assert ["analyze", "history"] == _make(session, some).row.scopes
    assert ["history"] == _make(session, some, scopes=["history"]).row.scopes
    with pytest.raises(InsufficientScope):
        _make(session, some, scopes=["analyze", "batch"])


def test_rotation_grants_no_scopes(session: Session) -> None:
    """A session with fewer scopes than the key cannot rotate it, and the old key stays valid."""
    whole = _principal(session)
    old = _make(session, whole, scopes=["analyze", "history"]).row
    less = Principal(whole.user_id, frozenset(["analyze"]), 0.0, session_id=uuid.uuid4())
    with pytest.raises(InsufficientScope):
        auth_api_keys.rotate(session, less, old.id, grace=NO_GRACE)
    assert old.revoked_at is None
    auth_api_keys.rotate(session, whole, old.id, grace=NO_GRACE)


def test_live_keys_are_limited(session: Session, monkeypatch) -> None:
    """Revoked and expired keys do not count; a rotation without grace always fits."""
    monkeypatch.setattr(auth_api_keys, "MAX_LIVE", 3)
    principal = _principal(session)
    first, second, third = (_make(session, principal).row.id for _ in range(3))
    with pytest.raises(auth_api_keys.TooManyKeys):
        _make(session, principal)
    with pytest.raises(auth_api_keys.TooManyKeys):
        auth_api_keys.rotate(session, principal, first, grace=timedelta(hours=1))
    auth_api_keys.rotate(session, principal, first, grace=NO_GRACE)
    auth_api_keys.revoke(session, principal.user_id, second)
    _make(session, principal)
    session.get_one(ApiKey, third).expires_at = datetime.now(UTC) - timedelta(seconds=1)
    _make(session, principal)
    with pytest.raises(auth_api_keys.TooManyKeys):
        _make(session, principal)
    _make(session, _principal(session))


def test_another_users_key_is_unknown(session: Session) -> None:
    """Another user's, revoked and unknown ids have the same error."""
    mine, other = _principal(session), _principal(session)
    key_id, gone = _make(session, mine).row.id, _make(session, other).row.id
    auth_api_keys.revoke(session, other.user_id, gone)
    for user_id, wanted in (
        (other.user_id, key_id),
        (other.user_id, gone),
        (other.user_id, uuid.uuid4()),
    ):
        with pytest.raises(auth_api_keys.KeyNotFound):
            auth_api_keys.revoke(session, user_id, wanted)
        with pytest.raises(auth_api_keys.KeyNotFound):
            auth_api_keys.rotate(session, other, wanted, grace=NO_GRACE)
    assert ([], None) == auth_api_keys.page(session, other.user_id, limit=10, cursor=None)


def test_revocation_is_published(session: Session) -> None:
    """A revoked key is in the revocations, has an event, and is not listed any more."""
    principal = _principal(session)
    key_id = _make(session, principal).row.id
    auth_api_keys.revoke(session, principal.user_id, key_id)
    session.flush()
    assert 1 == _news(session, key_id)
    assert "key.revoked" == _events(session, key_id)[-1][0]
    assert ([], None) == auth_api_keys.page(session, principal.user_id, limit=10, cursor=None)


def test_rotated_key_has_another_secret(session: Session) -> None:
    """The name, scopes, limit and expiry are the same; the old key ends at once."""
    principal = _principal(session)
    end = datetime.now(UTC) + timedelta(days=1)
    old = _make(session, principal, scopes=["batch"], expires_at=end, per_minute=7)
    new = auth_api_keys.rotate(session, principal, old.row.id, grace=NO_GRACE)
    for field in ("name", "scopes", "expires_at", "per_minute", "user_id"):
        assert getattr(old.row, field) == getattr(new.row, field), field
    assert old.row.id != new.row.id
    assert old.key[36:] != new.key[36:]
    assert old.row.revoked_at is not None
    session.flush()
    assert 1 == _news(session, old.row.id)
    assert ("key.rotated", {"to": str(new.row.id)}) == _events(session, old.row.id)[-1]


def test_with_grace_the_old_key_ends_later(session: Session) -> None:
    """Its expiry is never extended; the user is invalidated, and no key revoked."""
    principal = _principal(session)
    soon = datetime.now(UTC) + timedelta(minutes=1)
    for end, grace in ((None, 3600), (soon, 3600), (soon, 10)):
        old = _make(session, principal, expires_at=end).row
        before = _news(session, principal.user_id)
        auth_api_keys.rotate(session, principal, old.id, grace=timedelta(seconds=grace))
        session.flush()
        latest = datetime.now(UTC) + timedelta(seconds=grace)
        assert old.revoked_at is None
        assert old.expires_at is not None
        assert old.expires_at <= min(latest, end or latest)
        assert old.expires_at > datetime.now(UTC) + timedelta(seconds=5)
        assert (0, before + 1) == (_news(session, old.id), _news(session, principal.user_id))
    old.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(auth_api_keys.KeyExpired):
        auth_api_keys.rotate(session, principal, old.id, grace=NO_GRACE)


def test_pages_have_no_gap_and_no_repeat(session: Session) -> None:
    """Newest first, in the order of ids."""
    principal = _principal(session)
    made = [_make(session, principal).row.id for _ in range(7)]
    seen, cursor = [], None
    for _ in range(3):
        rows, cursor = auth_api_keys.page(session, principal.user_id, limit=3, cursor=cursor)
        seen += [row.id for row in rows]
    assert cursor is None
    assert made[::-1] == seen


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": " \t "},
        {"name": "x" * 65},
        {"name": "a\x1bb"},
        {"name": "a\nb"},
        {"name": 1},
        {"scopes": []},
        {"scopes": ["admin"]},
        {"scopes": ["analyze"] * 4},
        {"scopes": "analyze"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2999-01-01"},
        {"expires_at": "2999-01-01T00:00:00"},
        {"expires_at": "9999-12-31T23:59:59-23:59"},
        {"expires_at": 32503680000},
        {"expires_at": "32503680000"},
        {"per_minute": 0},
        {"per_minute": 1_000_001},
        {"per_minute": True},
        {"per_minute": "5"},
        {"secret": "x"},
    ],
)
def test_invalid_requests_are_rejected(changes: dict[str, object]) -> None:
    """Each field has one type and sensible limits."""
    with pytest.raises(ValidationError):
        KeyRequest.model_validate({"name": "a key"} | changes)


def test_request_requires_only_a_name() -> None:
    """Blanks around names are removed; times may have any offset."""
    assert "a key" == KeyRequest.model_validate({"name": "  a key "}).name
    request = {"name": "ключ", "expires_at": "2999-01-01T00:00:00+02:00", "per_minute": 5}
    end = KeyRequest.model_validate(request).expires_at
    assert datetime(2998, 12, 31, 22, tzinfo=UTC) == end
