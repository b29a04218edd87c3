"""Reliability cases 80 to 83: refresh tokens, logout, and tokens of accounts that change."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.invariants import CheckedClient
from support.rows import query
from support.servers import Servers
from support.stack import PASSWORD, Account, Service, Stack
from support.waiting import until

LOGIN = "/api/v1/auth/login"
REFRESH = "/api/v1/auth/refresh"
LOGOUT = "/api/v1/auth/logout"
LOGOUT_ALL = "/api/v1/auth/logout-all"
SESSIONS = "/api/v1/auth/sessions"
ME = "/api/v1/users/me"
PASSWORD_OF_ME = "/api/v1/users/me/password"
HISTORY = "/api/v1/sentiment/history"
PROMISED = 5.0
"""Seconds until every replica refuses what was ended."""


def _refresh(checked: CheckedClient, refresh_token: str) -> httpx.Response:
    return checked.post(REFRESH, json.dumps({"refresh_token": refresh_token}))


def _log_in(checked: CheckedClient, account: Account, **form: str) -> dict[str, Any]:
    form = {"username": account.username, "password": PASSWORD} | form
    answer = checked.request("POST", LOGIN, data=form)
    assert 200 == answer.status_code, answer.text
    tokens = dict(answer.json())
    checked.stack.secrets |= {tokens["access_token"], tokens["refresh_token"]}
    return tokens


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _status(checked: CheckedClient, method: str, path: str, token: str, **options: Any) -> int:
    return checked.request(method, path, headers=_bearer(token), **options).status_code


def _until_dead(checked: CheckedClient, token: str) -> None:
    for path in (ME, HISTORY):
        until(
            lambda path=path: _status(checked, "GET", path, token) == 401,
            timeout=PROMISED,
            what=f"{path} refuses the token",
        )


@pytest.fixture
def account(stack: Stack) -> Account:
    """A user who has registered and logged in: that is what these tests are about."""
    return stack.sign_up()


def _audit(stack: Stack, subject: str) -> list[str]:
    statement = "SELECT action FROM audit_events WHERE subject_id = :id ORDER BY id"
    return [action for (action,) in query(stack.database_url, statement, id=subject)]


def _shape(answer: httpx.Response) -> tuple[Any, ...]:
    headers = {k: v for k, v in answer.headers.items() if k not in {"date", "x-request-id"}}
    return answer.status_code, headers, answer.json() | {"request_id": ""}


def test_case_080_refresh_reuse(stack: Stack, checked: CheckedClient, account: Account) -> None:
    """A refresh token that comes again after the grace ends all that came of it."""
    first = _refresh(checked, account.refresh_token)
    assert 200 == first.status_code
    tokens = first.json()
    assert {"access_token", "token_type", "expires_in", "refresh_token"} == set(tokens)
    assert 200 == _status(checked, "GET", HISTORY, tokens["access_token"])
    [(session_id,)] = query(
        stack.database_url, "SELECT id FROM sessions WHERE user_id = :id", id=account.id
    )
    statement = (
        "UPDATE refresh_tokens SET used_at = used_at - interval '11 s' WHERE session_id = :id"
    )
    query(stack.database_url, statement, id=session_id)
    reused = _refresh(checked, account.refresh_token)
    assert (401, "Could not validate credentials") == (reused.status_code, reused.json()["detail"])
    for token in (account.refresh_token, tokens["refresh_token"], account.refresh_token):
        assert _shape(reused) == _shape(_refresh(checked, token))
    _until_dead(checked, account.token)
    _until_dead(checked, tokens["access_token"])
    expected = ["session.opened", "session.reuse_detected"]
    assert expected == _audit(stack, session_id)


def test_a_lost_answer_is_given_again(checked: CheckedClient, account: Account) -> None:
    """Asked twice within the grace, both answers hold; the one that goes on makes the other old."""
    one, other = (_refresh(checked, account.refresh_token).json() for _ in range(2))
    assert one["refresh_token"] != other["refresh_token"]
    for tokens in (one, other):
        assert 200 == _status(checked, "GET", ME, tokens["access_token"])
    assert 200 == _refresh(checked, other["refresh_token"]).status_code
    assert 401 == _refresh(checked, one["refresh_token"]).status_code


def test_a_refresh_token_that_is_none(checked: CheckedClient, account: Account) -> None:
    """Unknown, malformed and foreign ones are one refusal; a body without one is another."""
    refused = _shape(_refresh(checked, "A" * 43))
    assert 401 == refused[0]
    for token in ("", "x", "\u2603", "A" * 60_000, account.token, "vl_1_2", "A" * 43 + "\n"):
        assert refused == _shape(_refresh(checked, token))
    for body in ("{}", "[]", '{"refresh_token": null}', '{"refresh_token": 1}', '""'):
        assert 422 == checked.post(REFRESH, body).status_code
    extra = json.dumps({"refresh_token": account.refresh_token, "scope": "admin"})
    assert 422 == checked.post(REFRESH, extra).status_code
    form = {"refresh_token": account.refresh_token}
    assert 415 == checked.request("POST", REFRESH, data=form).status_code
    assert 401 == _status(checked, "GET", ME, account.refresh_token)
    assert 200 == _refresh(checked, account.refresh_token).status_code


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Two replicas of each web service over a Redis that may break."""
    with Servers.started(tmp_path, auth={}, inference={}) as servers:
        for name in ("auth", "inference"):
            servers.stack.start(name, ready=False)
        for service in servers.stack.services:
            service.wait_ready()
        yield servers


@pytest.mark.faults
def test_case_082_logout(servers: Servers) -> None:
    """After a logout neither token is good at any replica, with Redis up, empty, down and back."""
    stack = servers.stack
    account, other = stack.account(), stack.account()
    replicas = [(s, ME if s.name == "auth" else HISTORY) for s in stack.services]

    def statuses(headers: dict[str, str]) -> list[int]:
        return [httpx.get(s.url + path, headers=headers).status_code for s, path in replicas]

    def refresh(service: Service) -> int:
        body = {"refresh_token": account.refresh_token}
        return httpx.post(service.url + REFRESH, json=body).status_code

    assert [200] * 4 == statuses(account.headers)
    ended_at = time.monotonic()
    assert 204 == stack.post(LOGOUT, account).status_code
    until(lambda: statuses(account.headers) == [401] * 4, timeout=PROMISED)
    assert time.monotonic() - ended_at < PROMISED
    servers.valkey.flush()
    assert [401] * 4 == statuses(account.headers)
    with servers.valkey.down():
        assert [401] * 4 == statuses(account.headers)
        assert [401] * 2 == [refresh(s) for s in stack.running("auth")]
        # Also what is ended while Redis is away.
        assert 204 == stack.post(LOGOUT, other).status_code
        until(lambda: statuses(other.headers) == [401] * 4, timeout=PROMISED)
    assert [401] * 4 == statuses(account.headers)
    assert [401] * 4 == statuses(other.headers)
    assert [401] * 2 == [refresh(s) for s in stack.running("auth")]


def test_logout_ends_one_session_or_all(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """The others live on; `logout-all` ends these too, and nobody else's."""
    one, two, three = (_log_in(checked, account) for _ in range(3))
    stranger = stack.account()
    assert 204 == _status(checked, "POST", LOGOUT, one["access_token"])
    _until_dead(checked, one["access_token"])
    assert 401 == _refresh(checked, one["refresh_token"]).status_code
    assert 200 == _refresh(checked, two["refresh_token"]).status_code
    assert 204 == _status(checked, "POST", LOGOUT_ALL, two["access_token"])
    for token in (account.token, two["access_token"], three["access_token"]):
        _until_dead(checked, token)
    assert 401 == _refresh(checked, three["refresh_token"]).status_code
    assert 200 == _status(checked, "GET", ME, stranger.token)
    for path in (LOGOUT, LOGOUT_ALL):
        assert 401 == checked.request("POST", path).status_code


def test_sessions_are_listed_and_ended(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """One's own, with where they came from; another's session is as good as none."""
    agent = {"User-Agent": b"A browser/1.0 \x85(X)" + b"y" * 300}
    form = {"username": account.username, "password": PASSWORD}
    token = checked.request("POST", LOGIN, data=form, headers=agent).json()["access_token"]
    page = checked.request("GET", SESSIONS, headers=account.headers).json()
    assert [False, True] == [item["current"] for item in page["items"]]
    assert page["next_cursor"] is None
    assert {
        "id",
        "created_at",
        "last_used_at",
        "expires_at",
        "address",
        "user_agent",
        "current",
    } == set(page["items"][0])
    assert "127.0.0.1" == page["items"][0]["address"]
    expected = "A browser/1.0 (X)" + "y" * 300
    assert expected[:256] == page["items"][0]["user_agent"]
    limited = checked.request("GET", f"{SESSIONS}?limit=1", headers=_bearer(token)).json()
    following = f"{SESSIONS}?limit=1&cursor={limited['next_cursor']}"
    rest = checked.request("GET", following, headers=_bearer(token)).json()
    listed = [item["id"] for item in limited["items"] + rest["items"]]
    assert [item["id"] for item in page["items"]] == listed
    for bad in ("limit=0", "limit=101", "cursor=x", "cursor=%00", "unknown=1"):
        assert 422 == _status(checked, "GET", f"{SESSIONS}?{bad}", token)
    newest, oldest = listed
    stranger = stack.account()
    refusals = [
        checked.request("DELETE", f"{SESSIONS}/{identifier}", headers=stranger.headers)
        for identifier in (newest, stranger.id, "0" * 32)
    ]
    assert 404 == refusals[0].status_code
    assert [_shape(refusals[0])] * 3 == [_shape(refusal) for refusal in refusals]
    assert 204 == _status(checked, "DELETE", f"{SESSIONS}/{newest}", account.token)
    assert 404 == _status(checked, "DELETE", f"{SESSIONS}/{newest}", account.token)
    _until_dead(checked, token)
    left = checked.request("GET", SESSIONS, headers=account.headers).json()["items"]
    assert [oldest] == [item["id"] for item in left]
    assert ["session.opened", "session.ended"] == _audit(stack, newest)


def test_a_login_may_ask_for_less(checked: CheckedClient, account: Account) -> None:
    """Narrow tokens do no more; too much is refused, but only to who knows the password."""
    narrow = _log_in(checked, account, scope="history")
    again = _refresh(checked, narrow["refresh_token"]).json()
    for token in (narrow["access_token"], again["access_token"]):
        assert 200 == _status(checked, "GET", HISTORY, token)
        body = {"text": "good"}
        assert 403 == _status(checked, "POST", "/api/v1/sentiment/analyze", token, json=body)
    for scope, password, status, detail in (
        ("history admin", PASSWORD, 400, "Unknown or forbidden scope"),
        ("everything", PASSWORD, 400, "Unknown or forbidden scope"),
        ("everything", "not the password", 401, "Incorrect username or password"),
    ):
        form = {"username": account.username, "password": password, "scope": scope}
        answer = checked.request("POST", LOGIN, data=form)
        assert (status, detail) == (answer.status_code, answer.json()["detail"])


def test_case_083_password_change(stack: Stack, checked: CheckedClient, account: Account) -> None:
    """Other sessions end, the one that asks goes on, and only the new password is good."""
    other = _log_in(checked, account)
    new = checked.secret("another horse, same staple")
    body = {"current_password": PASSWORD, "new_password": new}
    assert 204 == _status(checked, "PUT", PASSWORD_OF_ME, account.token, json=body)
    _until_dead(checked, other["access_token"])
    assert 401 == _refresh(checked, other["refresh_token"]).status_code
    for path in (ME, HISTORY):
        assert 200 == _status(checked, "GET", path, account.token)
    assert 200 == _refresh(checked, account.refresh_token).status_code
    assert 401 == stack.login(account.username, PASSWORD).status_code
    assert 200 == stack.login(account.username, new).status_code
    assert ["account.registered", "password.changed"] == _audit(stack, account.id)


@pytest.mark.parametrize("change", ["is_active = false", "erased_at = now()"])
def test_case_083_who_may_not_act(
    stack: Stack, checked: CheckedClient, account: Account, change: str
) -> None:
    """A disabled or erased account's tokens are refused where accounts are kept, at once."""
    query(stack.database_url, f"UPDATE users SET {change} WHERE id = :id", id=account.id)
    for method, path in (("GET", ME), ("PATCH", ME), ("PUT", PASSWORD_OF_ME)):
        body = {
            "PATCH": {"email": "new@example.com"},
            "PUT": {"current_password": PASSWORD, "new_password": "another horse"},
        }
        options = {"json": body[method]} if method in body else {}
        assert 401 == _status(checked, method, path, account.token, **options)
    assert 401 == _refresh(checked, account.refresh_token).status_code
    assert 401 == stack.login(account.username).status_code
