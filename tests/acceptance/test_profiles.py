"""The own profile and password over HTTP (reliability case 90), and guesses at the password."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.invariants import CheckedClient
from support.rows import query
from support.stack import PASSWORD, Account, Stack

ME = "/api/v1/users/me"
PASSWORD_OF_ME = f"{ME}/password"
TAKEN = "Username or email already registered"


def _patch(checked: CheckedClient, account: Account, body: Any) -> httpx.Response:
    return checked.request("PATCH", ME, headers=account.headers, json=body)


def _put(checked: CheckedClient, account: Account, current: Any, new: Any) -> httpx.Response:
    body = json.dumps({"current_password": current, "new_password": new})
    headers = account.headers | {"content-type": "application/json"}
    return checked.request("PUT", PASSWORD_OF_ME, headers=headers, content=body)


def _row(stack: Stack, account: Account) -> tuple[Any, ...]:
    return query(stack.database_url, "SELECT * FROM users WHERE id = :id", id=account.id)[0]


def test_a_profile_is_changed(stack: Stack, checked: CheckedClient, account: Account) -> None:
    """Names are made canonical as at registration, and the account is found under the new one."""
    name = f"New-{uuid.uuid4().hex[:12]}"
    wide = name.replace("N", "\uff2e")
    before = checked.request("GET", ME, headers=account.headers).json()
    changed = _patch(checked, account, {"username": wide})
    assert 200 == changed.status_code
    assert before | {"username": name, "updated_at": changed.json()["updated_at"]} == changed.json()
    assert before["updated_at"] < changed.json()["updated_at"]
    assert f"{name}@Example.com".lower() == (
        _patch(checked, account, {"email": f"{name}@Example.com"}).json()["email"].lower()
    )
    assert checked.request("GET", ME, headers=account.headers).json()["username"] == name
    assert 200 == stack.login(name.upper()).status_code
    assert 401 == stack.login(account.username).status_code
    assert 201 == stack.register(account.username).status_code
    events = query(
        stack.database_url,
        "SELECT action, details FROM audit_events WHERE subject_id = :id ORDER BY id",
        id=account.id,
    )
    assert [
        ("profile.changed", {"fields": ["username"]}),
        ("profile.changed", {"fields": ["email"]}),
    ] == events


def test_a_profile_may_not_take_anothers_names(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Taken in any spelling is refused with one sentence; one's own names are free to oneself."""
    other, row = stack.account(), _row(stack, account)
    for body in (
        {"username": other.username},
        {"username": other.username.upper()},
        {"email": other.email},
        {"email": other.email.upper()},
        {"username": f"free-{uuid.uuid4().hex[:8]}", "email": other.email},
    ):
        answer = _patch(checked, account, body)
        assert (400, TAKEN) == (answer.status_code, answer.json()["detail"])
    assert row == _row(stack, account)
    assert 200 == _patch(checked, account, {"username": account.username.upper()}).status_code


def test_twenty_take_one_name(stack: Stack, checked: CheckedClient) -> None:
    """Of many that want one name at once, one has it."""
    accounts = [stack.account() for _ in range(6)]
    body = {"username": f"wanted-{uuid.uuid4().hex[:12]}"}
    with ThreadPoolExecutor(6) as pool:
        statuses = pool.map(lambda account: _patch(checked, account, body).status_code, accounts)
        assert [200] + [400] * 5 == sorted(statuses)


@pytest.mark.parametrize(
    "field",
    [
        "is_superuser",
        "is_active",
        "is_verified",
        "role",
        "roles",
        "id",
        "created_at",
        "token_epoch",
        "password_hash",
        "password",
        "plan",
        "per_minute",
        "erased_at",
        "username_key",
    ],
)
def test_case_090_patch_mass_assignment(
    stack: Stack, checked: CheckedClient, account: Account, field: str
) -> None:
    """What an account may not choose about itself is an unknown field, and nothing changes."""
    row = _row(stack, account)
    for value in (True, "admin", None, 0):
        body = {"email": f"new-{uuid.uuid4().hex}@example.com", field: value}
        assert 422 == _patch(checked, account, body).status_code
    assert row == _row(stack, account)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": None},
        {"username": None, "email": None},
        {"username": "a b"},
        {"username": "x" * 65},
        {"username": 1},
        {"email": "nobody"},
        {"email": ["a@example.com"]},
        [],
        "x",
    ],
)
def test_a_profile_that_is_none(
    stack: Stack, checked: CheckedClient, account: Account, body: object
) -> None:
    """Nothing to change, or names that cannot be, are refused."""
    row = _row(stack, account)
    assert 422 == _patch(checked, account, body).status_code
    assert row == _row(stack, account)


def test_a_new_password_must_be_strong(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """The rules of registration hold; a refusal shows neither password and costs no attempt."""
    row = _row(stack, account)
    for new in (
        checked.secret("S3nt-XY"),
        checked.secret("S3ntinel" * 33),
        "password1",
        account.username,
        account.username.upper(),
        "valence123",
        None,
        1,
    ):
        assert 422 == _put(checked, account, checked.secret("S3ntinel-OLD"), new).status_code
    assert 422 == _put(checked, account, None, "another horse").status_code
    assert row == _row(stack, account)
    assert 204 == _put(checked, account, PASSWORD, "another horse").status_code


def test_a_token_does_not_guess_the_password(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Five wrong guesses a minute, whatever their form; then not even the right one is heard."""
    for current in ("not the password", "", "x" * 5000, PASSWORD + "\u00e9", PASSWORD[:-1]):
        answer = _put(checked, account, current, "another horse")
        assert (401, "Incorrect password") == (answer.status_code, answer.json()["detail"])
    refused = _put(checked, account, PASSWORD, "another horse")
    assert 429 == refused.status_code
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert 200 == stack.login(account.username).status_code


def test_an_account_without_a_password(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Who logs in elsewhere has none to change."""
    query(stack.database_url, "UPDATE users SET password_hash = NULL WHERE id = :id", id=account.id)
    answer = _put(checked, account, PASSWORD, "another horse")
    assert (400, "This account has no password") == (answer.status_code, answer.json()["detail"])
    assert 401 == stack.login(account.username).status_code


def test_two_password_changes_at_once(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Both knew the password; the second finds that it is another by now."""
    news = ["another horse 1", "another horse 2"]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda new: _put(checked, account, PASSWORD, new), news))
    assert [204, 401] == sorted(answer.status_code for answer in answers)
    [won] = [new for new, answer in zip(news, answers, strict=True) if answer.status_code == 204]
    assert 200 == stack.login(account.username, won).status_code
