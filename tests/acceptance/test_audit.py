"""What administrators read: the audit log, usage, and questions at the edge of sense."""

import json
import uuid

import pytest

from support import credentials
from support.admins import AUDIT, PLAIN, USAGE, USERS, ask, change, delete
from support.invariants import CheckedClient
from support.rows import query
from support.stack import Account, Stack


@pytest.fixture
def admin(stack: Stack) -> Account:
    """A superuser, logged in."""
    return credentials.admin(stack)


def test_acts_are_in_the_audit_log(
    stack: Stack, checked: CheckedClient, admin: Account, account: Account
) -> None:
    """Who, whom, what; newest first, and nothing of what they are called."""
    user = f"{USERS}/{account.id}"
    change(checked, admin, account, is_active=False)
    change(checked, admin, account, is_active=True)
    change(checked, admin, account, is_superuser=True)
    change(checked, admin, account, is_superuser=False)
    body = PLAIN | {"per_minute": 7}
    assert 200 == ask(checked, admin, "PUT", f"{user}/limits", body).status_code
    delete(checked, admin, f"{user}/sessions")
    delete(checked, admin, user)
    page = f"{AUDIT}?actor={admin.id}&subject={account.id}"
    events = ask(checked, admin, "GET", page).json()["items"]
    acts = [event["action"] for event in events]
    assert acts[1:] == [
        "user.sessions_ended",
        "user.limits_changed",
        "user.demoted",
        "user.promoted",
        "user.enabled",
        "user.disabled",
    ]
    assert acts[0].endswith(".erased")
    assert {(admin.id, account.id)} == {(e["actor_id"], e["subject_id"]) for e in events}
    assert account.username not in json.dumps(events)
    assert account.email not in json.dumps(events)
    [promoted] = ask(checked, admin, "GET", f"{page}&action=user.promoted").json()["items"]
    seen, cursor = [], ""
    while cursor is not None:
        answer = ask(checked, admin, "GET", f"{page}&limit=3{cursor}").json()
        seen += answer["items"]
        cursor = answer["next_cursor"] and f"&cursor={answer['next_cursor']}"
    assert events == seen
    since = promoted["created_at"].replace("+", "%2B")
    later = ask(checked, admin, "GET", f"{page}&from={since}").json()["items"]
    assert events[:5] == later
    earlier = ask(checked, admin, "GET", f"{page}&to={since}").json()["items"]
    assert events[5:] == earlier


def test_questions_that_are_none(checked: CheckedClient, admin: Account) -> None:
    """422, and the input is not repeated."""
    for path in (
        f"{USERS}?limit=0",
        f"{USERS}?limit=101",
        f"{USERS}?cursor=x",
        f"{USERS}?q=",
        f"{USERS}?q=a%00b",
        f"{USERS}?q={'x' * 255}",
        f"{USERS}?is_active=maybe",
        f"{USERS}?unknown=1",
        f"{AUDIT}?from=yesterday",
        f"{AUDIT}?from=5",
        f"{AUDIT}?from=2026-01-01T00:00:00",
        f"{AUDIT}?to=0001-01-01T00:00:00%2B14:00",
        f"{AUDIT}?actor=me",
        f"{AUDIT}?action=a%00b",
        f"{USAGE}?user=me",
        f"{USAGE}?from=2020-01-01&to=2026-01-01",
    ):
        assert 422 == ask(checked, admin, "GET", path).status_code, path


def test_odd_questions_are_answered(checked: CheckedClient, admin: Account) -> None:
    """At the ends of time and of the alphabet as well."""
    for path in (
        f"{USERS}?q=%25&is_active=true&is_superuser=false&limit=100",
        f"{USERS}?q=%F0%9F%98%80%EF%B7%BA",
        f"{USERS}?cursor={uuid.UUID(int=0)}",
        f"{AUDIT}?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z",
        f"{AUDIT}?to=1960-01-01T00:00:00Z",
        f"{AUDIT}?cursor={uuid.UUID(int=2**128 - 1)}",
        f"{USAGE}?from=2026-11-01&to=2026-11-30",
    ):
        assert 200 == ask(checked, admin, "GET", path).status_code, path


def test_usage_of_all_and_of_one(stack: Stack, checked: CheckedClient, admin: Account) -> None:
    """An administrator sees whose it is."""
    one, two = stack.account(), stack.account()
    for user in (one, two):
        query(
            stack.database_url,
            "INSERT INTO usage (user_id, day, key_id, route, requests, texts)"
            " VALUES (:user, '2026-01-02', :key, 'analyze', 3, 4)",
            user=user.id,
            key=uuid.UUID(int=0),
        )
    days = f"{USAGE}?from=2026-01-01&to=2026-01-31"
    everybodys = ask(checked, admin, "GET", days).json()["items"]
    assert {one.id, two.id} <= {row["user_id"] for row in everybodys}
    assert [
        {
            "day": "2026-01-02",
            "user_id": one.id,
            "key_id": None,
            "route": "analyze",
            "requests": 3,
            "texts": 4,
        }
    ] == ask(checked, admin, "GET", f"{days}&user={one.id}").json()["items"]
