"""Erasure of an account: what the auth service does at once."""

import concurrent.futures
import uuid
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from support.batches import make_user
from support.rows import query
from support.stack import PASSWORD, Account, Stack
from support.waiting import until
from valence_auth import erasure, sessions
from valence_auth.sessions import SessionRequest
from valence_common.db import make_engine
from valence_common.models import ApiKey, Identity, LoginSession, User

ME = "/api/v1/users/me"
DAY = SessionRequest(lifetime=timedelta(days=1), idle=timedelta(days=1))


def erase(stack: Stack, account: Account, body: dict[str, Any]) -> httpx.Response:
    return stack.request("DELETE", ME, headers=account.headers, json=body)


def test_erasure_requires_the_password(stack: Stack, account: Account) -> None:
    """A stolen token cannot erase the account, and cannot guess the password for long."""
    wrong = erase(stack, account, {"password": "not the password"})
    assert (401, "Incorrect password") == (wrong.status_code, wrong.json()["detail"])
    missing = erase(stack, account, {})
    assert (401, "Incorrect password") == (missing.status_code, missing.json()["detail"])
    answers = [erase(stack, account, {"password": f"guess {n}"}) for n in range(4)]
    assert [401, 401, 401, 429] == [answer.status_code for answer in answers]
    assert 429 == erase(stack, account, {"password": PASSWORD}).status_code
    assert 200 == stack.get(ME, account).status_code


def test_erasure_takes_effect_at_once(stack: Stack, account: Account) -> None:
    """No login, no token, no refresh; the names are free again."""
    assert 204 == erase(stack, account, {"password": PASSWORD}).status_code
    assert 401 == stack.get(ME, account).status_code
    assert 401 == stack.login(account.username).status_code
    body = {"refresh_token": account.refresh_token}
    assert 401 == stack.post("/api/v1/auth/refresh", json=body).status_code
    text = {"text": "good"}
    until(
        lambda: stack.post("/api/v1/sentiment/analyze", account, json=text).status_code == 401,
        timeout=5,
        what="the token refused by inference",
    )
    again = stack.register(account.username)
    assert (201, account.username) == (again.status_code, again.json()["username"])
    assert account.id != again.json()["id"]


def test_account_without_a_password_is_erased_without_one(
    stack: Stack, account: Account, database_url: str
) -> None:
    """An OpenID account; sending a password is an error."""
    query(database_url, "UPDATE users SET password_hash = NULL WHERE id = :id", id=account.id)
    assert 400 == erase(stack, account, {"password": PASSWORD}).status_code
    assert 204 == erase(stack, account, {}).status_code
    assert 401 == stack.get(ME, account).status_code


def test_concurrent_erasures_are_one(stack: Stack, account: Account, database_url: str) -> None:
    """Two clicks: one of them may find the account erased already."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: erase(stack, account, {"password": PASSWORD}), range(3)))
    assert {answer.status_code for answer in answers} <= {204, 401}
    assert 204 in {answer.status_code for answer in answers}
    events = (
        "SELECT count(*) FROM audit_events WHERE subject_id = :id AND action = 'account.erased'"
    )
    assert [(1,)] == query(database_url, events, id=account.id)


def test_erased_row_holds_no_personal_data(session: Session) -> None:
    """Only its id and its times remain."""
    user = session.get_one(User, make_user(session))
    user.plan, user.per_minute, user.burst, user.texts_per_day = "friends", 1, 2, 3
    user.is_superuser = True
    before = {user.username, user.username_key, user.email, user.email_key, "friends", 1, 2, 3}
    administrator = session.get_one(User, make_user(session))
    administrator.is_superuser = True
    erasure.erase(session, user, actor_id=administrator.id)
    session.flush()
    session.refresh(user)
    values = {column.name: getattr(user, column.name) for column in User.__table__.columns}
    assert set() == before & set(values.values())
    assert values["password_hash"] is None
    assert not values["is_active"]
    assert not values["is_superuser"]
    assert values["erased_at"] is not None


def test_erasure_ends_every_credential_at_once(session: Session) -> None:
    """In the transaction of the erasure, however late the worker deletes the rest."""
    user, other = (session.get_one(User, make_user(session)) for _ in range(2))
    for each in (user, other):
        session.add_all(
            [
                Identity(user_id=each.id, issuer="https://example.com", subject=str(each.id)),
                ApiKey(user_id=each.id, name="key", secret_hash=b"", scopes=[]),
            ]
        )
        sessions.open_session(session, each, DAY)
    session.flush()
    assert (1, 1, 1) == credentials(session, user.id) == credentials(session, other.id)
    erasure.erase(session, user)
    assert (0, 0, 0) == credentials(session, user.id)
    assert (1, 1, 1) == credentials(session, other.id)


def credentials(session: Session, user_id: uuid.UUID) -> tuple[int, ...]:
    """Return how many identities, keys and sessions a user can act with."""
    alive = (
        select(Identity).where(Identity.user_id == user_id),
        select(ApiKey).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None)),
        select(LoginSession).where(
            LoginSession.user_id == user_id, LoginSession.ended_at.is_(None)
        ),
    )
    return tuple(len(session.scalars(query).all()) for query in alive)


def test_last_administrator_cannot_be_erased(own_database_url: str) -> None:
    """Erased and disabled administrators do not count."""
    engine = make_engine(SecretStr(own_database_url))
    with Session(engine) as session:
        last, other = (session.get_one(User, make_user(session)) for _ in range(2))
        last.is_superuser = other.is_superuser = True
        other.is_active = False
        session.flush()
        with pytest.raises(erasure.LastSuperuser):
            erasure.erase(session, last)
        other.is_active = True
        session.flush()
        erasure.erase(session, last)
        assert last.erased_at is not None
    engine.dispose()


def test_name_of_an_erased_row_cannot_be_registered(stack: Stack, account: Account) -> None:
    """Registering the name that the row will get does not prevent the erasure."""
    squatter = stack.register(f"erased-{uuid.UUID(account.id).hex}")
    assert 201 == squatter.status_code
    assert 204 == erase(stack, account, {"password": PASSWORD}).status_code


def test_concurrent_login_gets_no_session_of_an_erased_account(database_url: str) -> None:
    """The password matched before the erasure; the session is opened after it."""
    engine = make_engine(SecretStr(database_url))
    with Session(engine, expire_on_commit=False) as session:
        user = session.get_one(User, make_user(session))
        session.commit()
    with Session(engine) as session:
        erasure.erase(session, user)
        session.commit()
    with Session(engine) as session, pytest.raises(sessions.UserChanged):
        sessions.open_session(session, user, DAY)
    engine.dispose()
