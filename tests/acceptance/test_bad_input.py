"""Reliability cases 1 to 15: JSON values that must be rejected."""

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


def test_case_001_not_a_number(checked: CheckedClient, account: Account) -> None:
    """NaN, Infinity and numbers out of range are refused in every place of every body."""
    for literal in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999"):
        for body in (
            f'{{"text": {literal}}}',
            f'{{"text": "fine", "explain": {literal}}}',
            f'{{"text": "fine", "unknown": {literal}}}',
            literal,
            f"[{literal}]",
        ):
            assert 422 == checked.post(ANALYZE, body, account).status_code, body
        for body in (f'{{"texts": [{literal}]}}', f'{{"texts": ["fine"], "unknown": {literal}}}'):
            assert 422 == checked.post(BATCH, body, account).status_code, body
        for name in ("username", "email", "password", "unknown"):
            body = json.dumps(_registration(**{name: "@@"})).replace('"@@"', literal)
            assert 422 == checked.post(REGISTER, body).status_code, body


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


def test_case_006_depth_bombs(checked: CheckedClient, account: Account) -> None:
    """Deep nesting ends at 32 levels, soon, before anything is validated, on every route."""
    for body in (
        b"[" * 33,
        b"[" * 1_000,
        b"[" * 100_000,
        b"[" * 33 + b"]" * 33,
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b'{"text": "fine", "unknown": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"text": "fine \\" [[", "unknown": ' + b"[" * 33 + b"]" * 33 + b"}",
        b"[" * 40 + b'"' * 20_000,
    ):
        answer = checked.post(ANALYZE, body, account)
        rule = "The request body is nested deeper than 32 levels"
        assert (400, rule) == (answer.status_code, answer.json()["detail"]), body[:50]
        assert answer.elapsed.total_seconds() < 1
        assert 400 == checked.post(BATCH, body, account).status_code
        if len(body) < 64 * 1024:
            assert 400 == checked.post(REGISTER, body).status_code


def test_case_006_depth_within_the_limit(checked: CheckedClient, account: Account) -> None:
    """32 levels, and any number of brackets inside strings, are not too deep."""
    deep = b'{"text": "fine", "unknown": ' + b"[" * 31 + b"]" * 31 + b"}"
    answer = checked.post(ANALYZE, deep, account)
    rules = [error["rule"] for error in answer.json()["errors"]]
    assert (422, ["extra_forbidden"]) == (answer.status_code, rules)
    brackets = json.dumps({"text": "good " + '[{"\\' * 100})
    assert 200 == checked.post(ANALYZE, brackets, account).status_code


def test_case_007_encodings(checked: CheckedClient, account: Account) -> None:
    """Only UTF-8 without a mark is read, so that nobody can read something else."""
    for body, expected in (
        (b'{"text": "\xff\xfe"}', 400),
        (b'{"text": "\xc0\xaf"}', 400),
        (b'{"text": "\xed\xa0\x80"}', 400),
        ('{"text": "good"}'.encode("utf-16"), 400),
        ('{"text": "good"}'.encode("utf-16-le"), 400),
        ('{"text": "good"}'.encode("utf-16-be"), 400),
        ('{"text": "good"}'.encode("utf-32"), 400),
        ('{"text": "good"}'.encode("utf-8-sig"), 400),
        ('{"text": "gööd"}'.encode("latin-1"), 400),
        ('{"text": "gööd"}'.encode(), 200),
    ):
        assert expected == checked.post(ANALYZE, body, account).status_code, body


def test_case_007_charsets(checked: CheckedClient, account: Account) -> None:
    """A charset that is not UTF-8 is refused by its name."""
    for charset in ("utf-7", "latin-1", "utf-16", "utf-8; charset=utf-7", "utf-8, utf-7"):
        kind = f"application/json; charset={charset}"
        answer = checked.post(ANALYZE, b'{"text": "+AGc-ood"}', account, content_type=kind)
        assert 415 == answer.status_code, charset


def test_case_009_content_types(checked: CheckedClient, account: Account) -> None:
    """JSON routes take JSON and the login takes a form; everything else is 415, unread."""
    text = checked.secret("lovely-unread-body")
    body = json.dumps({"text": text})
    for kind in (
        "text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
        "application/jsonx", "text/json", "application/problem+json", "*/*",
        "application/json, text/plain", "application/json; boundary=x",
    ):  # fmt: skip
        assert 415 == checked.post(ANALYZE, body, account, content_type=kind).status_code, kind
        assert 415 == checked.post(REGISTER, body, content_type=kind).status_code, kind
    assert 415 == checked.post(LOGIN, body).status_code
    form = "multipart/form-data; boundary=x"
    assert 415 == checked.post(LOGIN, b"--x--", content_type=form).status_code


def test_case_009_json_in_its_spellings(checked: CheckedClient, account: Account) -> None:
    """The spellings of JSON's media type are all taken."""
    for kind in (
        "application/json",
        "application/json;charset=utf-8",
        'Application/JSON; charset="UTF-8"',
    ):
        answer = checked.post(ANALYZE, b'{"text": "good"}', account, content_type=kind)
        assert 200 == answer.status_code, kind


def test_case_015_strict_types(checked: CheckedClient, account: Account) -> None:
    """A field has its type and nothing that looks like it; unknown fields are refused."""
    analyze, batch = "/api/v1/sentiment/analyze", "/api/v1/sentiment/analyze/batch"
    for path, body in (
        (analyze, {"text": True}),
        (analyze, {"text": 7}),
        (analyze, {"text": None}),
        (analyze, {"text": ["good"]}),
        (analyze, {}),
        (analyze, []),
        (analyze, ["text"]),
        (analyze, "text"),
        (analyze, None),
        (analyze, 7),
        (analyze, {"text": "good", "explain": "true"}),
        (analyze, {"text": "good", "explain": 1}),
        (analyze, {"text": "good", "explain": 1.0}),
        (analyze, {"text": "good", "explain": None}),
        (analyze, {"text": "good", "Explain": True}),
        (analyze, {"text": "good", "extra": 1}),
        (analyze, {"text": "good", "": 1}),
        (batch, {"texts": ["good"], "extra": 1}),
        (batch, {"texts": {"0": "good"}}),
        (REGISTER, _registration(username=7)),
        (REGISTER, _registration(email=True)),
        (REGISTER, _registration(password=None)),
        (REGISTER, [_registration()]),
    ):
        answer = checked.post(path, json.dumps(body), account)
        assert 422 == answer.status_code, body
    twice = '{"text": "good", "explain": true, "explain": false}'
    for body in ('{"text": "good", "text": "bad"}', twice):
        answer = checked.post(analyze, body, account)
        assert (422, "unique_keys") == (answer.status_code, answer.json()["errors"][0]["rule"])


def test_each_broken_field_is_named_once(checked: CheckedClient) -> None:
    """Also where several dependencies of a route ask for it."""
    answer = checked.request("POST", "/api/v1/auth/login", data={"username": "ada"})
    assert [("body.password", "missing")] == [
        (error["field"], error["rule"]) for error in answer.json()["errors"]
    ]
