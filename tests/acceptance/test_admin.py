"""Reliability cases 83 and 92: administration, and how soon it takes effect everywhere."""

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from support import credentials
from support.admins import AUDIT, PLAIN, USAGE, USERS, ask, change, delete
from support.invariants import CheckedClient
from support.rows import query
from support.stack import PASSWORD, Account, Stack
from support.waiting import until

ME = "/api/v1/users/me"
HISTORY = "/api/v1/sentiment/history"
PROMISE = 5.0


@pytest.fixture
def admin(stack: Stack) -> Account:
    """A superuser, logged in."""
    return credentials.admin(stack)


def _login(checked: CheckedClient, user: Account) -> int:
    form = {"username": user.username, "password": PASSWORD}
    return checked.request("POST", "/api/v1/auth/login", data=form).status_code


@dataclass
class Watch:
    """Polls with credentials of before, and tells how long each of them was still believed."""

    checked: CheckedClient
    headers: dict[str, str]
    paths: tuple[str, ...]

    def statuses(self) -> dict[str, int]:
        return {
            path: self.checked.request("GET", path, headers=self.headers).status_code
            for path in self.paths
        }

    def refused_after(self, act: Callable[[], object]) -> float:
        """Seconds from the act's answer until every path refuses, for good."""
        assert {200} == set(self.statuses().values())
        act()
        started = time.monotonic()
        until(lambda: set(self.statuses().values()) <= {401, 403}, timeout=PROMISE, what="refused")
        seconds = time.monotonic() - started
        assert set(self.statuses().values()) <= {401, 403}
        return seconds


def test_case_083_live_token_of_a_changed_user(
    stack: Stack, checked: CheckedClient, admin: Account
) -> None:
    """Disabled, demoted, promoted, logged out, erased: refused by both services within 5 s."""
    for name, act in (
        ("disabled", lambda user: change(checked, admin, user, is_active=False)),
        ("promoted", lambda user: change(checked, admin, user, is_superuser=True)),
        ("sessions ended", lambda user: delete(checked, admin, f"{USERS}/{user.id}/sessions")),
        ("erased", lambda user: delete(checked, admin, f"{USERS}/{user.id}")),
    ):
        user = stack.account()
        seconds = Watch(checked, user.headers, (ME, HISTORY)).refused_after(
            lambda a=act, u=user: a(u)
        )
        print(f"\n{name}: token refused by both services after {seconds:.2f} s")
    other = credentials.admin(stack)
    watch = Watch(checked, other.headers, (ME, HISTORY, USERS))
    seconds = watch.refused_after(lambda: change(checked, admin, other, is_superuser=False))
    print(f"\ndemoted: token refused by both services after {seconds:.2f} s")
    assert 200 == _login(checked, other)


def test_case_083_keys_of_a_disabled_user(
    stack: Stack, checked: CheckedClient, admin: Account
) -> None:
    """They rest with their account within 5 s, and work again within 5 s of its return."""
    user = stack.account()
    watch = Watch(checked, credentials.key(stack, user, ["history"]), (HISTORY,))
    until(lambda: watch.statuses() == {HISTORY: 200}, timeout=PROMISE)
    seconds = watch.refused_after(lambda: change(checked, admin, user, is_active=False))
    print(f"\ndisabled: API key refused after {seconds:.2f} s")
    assert 401 == _login(checked, user)
    change(checked, admin, user, is_active=True)
    started = time.monotonic()
    until(lambda: watch.statuses() == {HISTORY: 200}, timeout=PROMISE, what="key works again")
    print(f"\nenabled: API key works again after {time.monotonic() - started:.2f} s")
    assert 200 == _login(checked, user)
    assert 401 == ask(checked, user, "GET", ME).status_code, "the old session stays ended"
    seconds = watch.refused_after(lambda: delete(checked, admin, f"{USERS}/{user.id}"))
    print(f"\nerased: API key refused after {seconds:.2f} s")


ROUTES = (
    ("GET", USERS, None),
    ("GET", f"{USERS}/{{id}}", None),
    ("PATCH", f"{USERS}/{{id}}", {"is_superuser": True}),
    ("PUT", f"{USERS}/{{id}}/limits", PLAIN),
    ("DELETE", f"{USERS}/{{id}}/sessions", None),
    ("DELETE", f"{USERS}/{{id}}", None),
    ("GET", AUDIT, None),
    ("GET", USAGE, None),
)
SPOOFED = ("X-User-Id", "X-Forwarded-User", "X-Remote-User", "X-Role", "X-Original-URL")


def test_case_092_users_do_not_administer(
    stack: Stack, checked: CheckedClient, account: Account, admin: Account
) -> None:
    """403 to a user, whatever headers say of them; also to a superuser's key; nothing changes."""
    spoofed = dict.fromkeys(SPOOFED, admin.id) | {"X-Role": "admin", "X-Original-URL": ME}
    key = credentials.key(stack, admin, ["analyze", "batch", "history"])
    for method, path, body in ROUTES:
        for headers, expected in (
            ({}, {401}),
            (spoofed, {401}),
            (account.headers, {403}),
            (account.headers | spoofed, {403}),
            (key, {401, 403}),
        ):
            answer = checked.request(method, path.format(id=account.id), headers=headers, json=body)
            assert answer.status_code in expected, (method, path, *headers)
    state = "SELECT is_superuser, is_active, erased_at FROM users WHERE id = :id"
    assert [(False, True, None)] == query(stack.database_url, state, id=account.id)


@pytest.mark.parametrize("column", ["is_superuser = false", "is_active = false"])
def test_case_092_the_database_outweighs_the_token(
    stack: Stack, checked: CheckedClient, account: Account, admin: Account, column: str
) -> None:
    """A token with the scope `admin` is of no use, at once, once the row says otherwise."""
    assert 200 == ask(checked, admin, "GET", USERS).status_code
    query(stack.database_url, f"UPDATE users SET {column} WHERE id = :id", id=admin.id)
    for method, path, body in ROUTES:
        answer = ask(checked, admin, method, path.format(id=account.id), body)
        assert (403, "Not allowed") == (answer.status_code, answer.json()["detail"]), path
    state = "SELECT is_superuser, is_active, erased_at FROM users WHERE id = :id"
    assert [(False, True, None)] == query(stack.database_url, state, id=account.id)


def test_users_are_listed_and_found(stack: Stack, checked: CheckedClient, admin: Account) -> None:
    """As their owners see them, and what only administrators see."""
    user = stack.account()
    [found] = ask(checked, admin, "GET", f"{USERS}?q={user.username.upper()}").json()["items"]
    own = ask(checked, user, "GET", ME).json()
    assert own == found
    record = ask(checked, admin, "GET", f"{USERS}/{user.id}").json()
    assert own | {"limits": PLAIN, "live_sessions": 1, "live_keys": 0} == record
    assert "password" not in json.dumps(record)
    first = ask(checked, admin, "GET", f"{USERS}?limit=1").json()
    second = ask(checked, admin, "GET", f"{USERS}?limit=1&cursor={first['next_cursor']}").json()
    assert first["items"][0]["created_at"] >= second["items"][0]["created_at"]
    assert first["items"] != second["items"]


def test_unknown_users_are_404(checked: CheckedClient, admin: Account) -> None:
    """For every act, in one way."""
    for method, path, body in ROUTES[1:6]:
        answer = ask(checked, admin, method, path.format(id=uuid.uuid4()), body)
        assert (404, "User not found") == (answer.status_code, answer.json()["detail"]), method
        answer = ask(checked, admin, method, path.format(id="x"), body)
        assert 422 == answer.status_code


@pytest.mark.parametrize("state", [{"is_active": False}, {"is_superuser": False}])
def test_nobody_disables_or_demotes_themselves(
    checked: CheckedClient, admin: Account, state: dict[str, bool]
) -> None:
    """409 with a sentence; nor do they erase themselves here."""
    sentence = "Administrators cannot disable, demote or erase themselves"
    for method, body in (("PATCH", state), ("DELETE", None)):
        answer = ask(checked, admin, method, f"{USERS}/{admin.id}", body)
        assert (409, sentence) == (answer.status_code, answer.json()["detail"])
    assert 200 == ask(checked, admin, "GET", USERS).status_code


LIMITS = (
    ({}, 200),
    ({"per_minute": 5, "burst": 0, "texts_per_day": 0}, 200),
    ({"per_minute": 10**9, "burst": 10**9, "texts_per_day": 10**12}, 200),
    ({"plan": "nothing of that name"}, 422),
    ({"plan": "x" * 33}, 422),
    ({"plan": None}, 422),
    ({"per_minute": 0}, 422),
    ({"per_minute": "5"}, 422),
    ({"per_minute": True}, 422),
    ({"per_minute": 2**31}, 422),
    ({"burst": -1}, 422),
    ({"burst": 1.5}, 422),
    ({"texts_per_day": 10**30}, 422),
    ({"unknown": 1}, 422),
)


def test_limits_are_set_whole(checked: CheckedClient, admin: Account, account: Account) -> None:
    """What is out of range or no plan is refused; the record shows what holds."""
    path = f"{USERS}/{account.id}/limits"
    for limits, expected in LIMITS:
        answer = ask(checked, admin, "PUT", path, PLAIN | limits)
        assert expected == answer.status_code, limits
        if expected == 200:
            assert PLAIN | limits == answer.json()["limits"]
    for name in PLAIN:
        body = {k: v for k, v in PLAIN.items() if k != name}
        assert 422 == ask(checked, admin, "PUT", path, body).status_code, name
