"""Reliability cases 2 to 9: JSON values that must be rejected, and some that must not.

`test_every_body` has what holds for every operation alike.
"""

import json
import uuid

from support.invariants import CheckedClient
from support.rows import query
from support.stack import Account, Stack

REGISTER = "/api/v1/auth/register"
LOGIN = "/api/v1/auth/login"
ME = "/api/v1/users/me"
ANALYZE = "/api/v1/sentiment/analyze"
BATCH = "/api/v1/sentiment/analyze/batch"
HISTORY = "/api/v1/sentiment/history"
TASK = "/api/v1/sentiment/task"


def _registration(**fields: object) -> dict[str, object]:
    name = f"user-{uuid.uuid4().hex[:12]}"
    return {"username": name, "email": f"{name}@example.com", "password": "fine words 77"} | fields


def test_case_002_and_003_holes_in_text(
    checked: CheckedClient, account: Account, stack: Stack
) -> None:
    """Lone surrogates and NUL are refused wherever they stand; nothing is stored."""
    for hole in (r"\ud800", r"x\udfffy", r"\uDBFF\u0041", r"\u0000", r"before\u0000after"):
        for body in (
            f'{{"text": "{hole}"}}',
            f'{{"text": "fine", "{hole}": 1}}',
            f'{{"text": "fine", "explain": "{hole}"}}',
            f'{{"text": ["{hole}"]}}',
        ):
            assert 422 == checked.post(ANALYZE, body, account).status_code, body
        batch = f'{{"texts": ["fine", "{hole}", "fine"]}}'
        assert 422 == checked.post(BATCH, batch, account).status_code
        for name in ("username", "email", "password"):
            body = json.dumps(_registration(**{name: "@@"})).replace("@@", f"abcdefgh{hole}")
            assert 422 == checked.post(REGISTER, body).status_code, body
    rows = (
        "SELECT id FROM predictions WHERE user_id = :user"
        " UNION SELECT id FROM batches WHERE user_id = :user"
    )
    assert [] == query(stack.database_url, rows, user=account.id)


def test_case_002_surrogate_pairs_are_text(checked: CheckedClient, account: Account) -> None:
    """A pair of escapes that is one character is not mistaken for two lone ones."""
    answer = checked.post(ANALYZE, r'{"text": "\ud83d\ude00 \\u0000 \\ud800"}', account)
    assert (200, "\U0001f600 \\u0000 \\ud800") == (answer.status_code, answer.json()["text"])


def test_case_003_nul_in_paths_queries_and_forms(checked: CheckedClient, account: Account) -> None:
    """NUL is refused or found nowhere, wherever else it may stand."""
    for path, expected in (
        (f"{TASK}/%00", 422),
        (f"{HISTORY}?cursor=%00", 422),
        (f"{HISTORY}?q=%00", 422),
        (f"{HISTORY}?limit=1%00", 422),
        (f"{HISTORY}%00", 404),
        ("/docs/%00", 404),
        ("/%00", 404),
    ):
        answer = checked.request("GET", path, headers=account.headers)
        assert expected == answer.status_code, path
    for form in (
        f"username={account.username}%00&password=correct+horse+battery+staple",
        f"username={account.username}&password=correct+horse+battery+staple%00",
        "username=%00&password=%00",
        "username=%ff%fe&password=%ed%a0%80",
        "username=\xff\xfe&password=\xed\xa0\x80",
    ):
        answer = checked.post(LOGIN, form, content_type="application/x-www-form-urlencoded")
        assert 401 == answer.status_code, form


def test_case_004_integers_past_the_column(checked: CheckedClient, account: Account) -> None:
    """Ids, limits and cursors out of range are not found or refused, never Postgres's trouble."""
    for path, expected in (
        (f"{TASK}/99999999999999999999999999", 422),
        (f"{TASK}/9223372036854775808", 422),
        (f"{TASK}/-1", 422),
        (f"{TASK}/{uuid.UUID(int=0)}", 404),
        (f"{TASK}/{uuid.UUID(int=2**128 - 1)}", 404),
        (f"{HISTORY}?offset=100000000000000000000", 422),
        (f"{HISTORY}?limit=10000000000000000000000", 422),
        (f"{HISTORY}?limit={'9' * 5000}", 422),
        (f"{HISTORY}?limit=-1", 422),
        (f"{HISTORY}?from=9999-12-31T23:59:59-23:59", 422),
        (f"{HISTORY}?to=0001-01-01T00:00:00%2B23:59", 422),
        (f"{HISTORY}?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z", 200),
        (f"{HISTORY}?from=2026-01-01T00:00:00", 422),
        (f"{HISTORY}?from=0.5", 422),
        (f"{HISTORY}?from=1e30", 422),
        (f"{HISTORY}?from=-1e30", 422),
        (f"{HISTORY}?q=%ED%A0%80", 200),
        (f"{HISTORY}?q=%25_%5C", 200),
        (f"{HISTORY}?q={'x' * 201}", 422),
        (f"{HISTORY}?limit=0", 422),
        (f"{HISTORY}?limit=101", 422),
        (f"{HISTORY}?limit=1e1", 422),
        (f"{HISTORY}?cursor=", 422),
        (f"{HISTORY}?cursor={'/' * 32}", 422),
        (f"{HISTORY}?cursor={'_' * 32}", 422),
        (f"{HISTORY}?cursor={'A' * 65}", 422),
        (f"{HISTORY}?cursor=é", 422),
    ):
        answer = checked.request("GET", path, headers=account.headers)
        assert expected == answer.status_code, path


def test_case_006_depth_within_the_limit(checked: CheckedClient, account: Account) -> None:
    """32 levels, and any number of brackets inside strings, are not too deep."""
    deep = b'{"text": "fine", "unknown": ' + b"[" * 31 + b"]" * 31 + b"}"
    answer = checked.post(ANALYZE, deep, account)
    rules = [error["rule"] for error in answer.json()["errors"]]
    assert (422, ["extra_forbidden"]) == (answer.status_code, rules)
    brackets = json.dumps({"text": "good " + '[{"\\' * 100})
    assert 200 == checked.post(ANALYZE, brackets, account).status_code


def test_case_009_json_in_its_spellings(checked: CheckedClient, account: Account) -> None:
    """The spellings of JSON's media type are all taken, and UTF-8 as it is."""
    for kind in (
        "application/json",
        "application/json;charset=utf-8",
        'Application/JSON; charset="UTF-8"',
    ):
        answer = checked.post(ANALYZE, '{"text": "gööd"}'.encode(), account, content_type=kind)
        assert (200, "gööd") == (answer.status_code, answer.json()["text"]), kind


def test_each_broken_field_is_named_once(checked: CheckedClient) -> None:
    """Also where several dependencies of a route ask for it."""
    answer = checked.request("POST", "/api/v1/auth/login", data={"username": "ada"})
    assert [("body.password", "missing")] == [
        (error["field"], error["rule"]) for error in answer.json()["errors"]
    ]
