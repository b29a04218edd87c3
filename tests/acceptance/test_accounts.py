"""Reliability cases 84 to 95: accounts, what a login discloses, and ownership."""

import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.invariants import CheckedClient
from support.rows import query
from support.stack import PASSWORD, Account, Stack

REGISTER = "/api/v1/auth/register"
LOGIN = "/api/v1/auth/login"
ME = "/api/v1/users/me"
TASK = "/api/v1/sentiment/task"
HISTORY = "/api/v1/sentiment/history"


def _registration(**fields: object) -> dict[str, object]:
    name = f"user-{uuid.uuid4().hex[:12]}"
    return {"username": name, "email": f"{name}@example.com", "password": PASSWORD} | fields


def _register(checked: CheckedClient, **fields: object) -> tuple[int, dict[str, object]]:
    body = _registration(**fields)
    return checked.post(REGISTER, json.dumps(body)).status_code, body


def _login(checked: CheckedClient, username: object, password: object) -> int:
    return checked.request(
        "POST", LOGIN, data={"username": username, "password": password}
    ).status_code


def _shape(answer) -> tuple[object, ...]:
    """All of an answer but its id and date."""
    headers = {k: v for k, v in answer.headers.items() if k not in {"date", "x-request-id"}}
    body = answer.json()
    body.pop("request_id")
    return answer.status_code, headers, body


def test_case_013_no_echo_of_secrets(checked: CheckedClient) -> None:
    """A password that is refused comes back nowhere: not in the answer, not in a log."""
    for password in (
        checked.secret("S3ntinel-XYZ"),
        checked.secret("S3nt-XY"),
        [checked.secret("S3ntinel-LIST")],
        {checked.secret("S3ntinel-KEY"): checked.secret("S3ntinel-VALUE")},
        checked.secret("S3ntinel-LONG") * 500,
    ):
        body = json.dumps(_registration(password=password, username="!!"))
        assert 422 == checked.post(REGISTER, body).status_code
        assert 422 == checked.post(REGISTER, json.dumps({"password": password})).status_code
        assert 415 == checked.post(REGISTER, body, content_type="text/plain").status_code
        assert 400 == checked.post(REGISTER, body[:-1]).status_code
        form = {"username": "nobody", "password": str(password)}
        assert 401 == checked.request("POST", LOGIN, data=form).status_code
        assert 422 == checked.request("POST", LOGIN, data={"password": str(password)}).status_code
        assert 404 == checked.request("POST", "/api/v1/auth/nothing", json=form).status_code
    body = json.dumps(_registration()).replace("}", f', "{checked.secret("S3ntinel-FIELD")}": 1}}')
    assert 422 == checked.post(REGISTER, body).status_code


def test_case_084_enumeration_by_login(stack: Stack, checked: CheckedClient) -> None:
    """Wrong, unknown, impossible, disabled and over-long: one and the same answer."""
    disabled, enabled = stack.account(), stack.account()
    query(
        stack.database_url,
        "UPDATE users SET is_active = false WHERE id = :user",
        user=disabled.id,
    )
    answers = [
        checked.request("POST", LOGIN, data={"username": username, "password": password})
        for username, password in (
            (enabled.username, "not the password"),
            (enabled.username, "x" * 5000),
            ("nobody-of-that-name", PASSWORD),
            ("\u2603" * 300, PASSWORD),
            ("a", PASSWORD),
            (disabled.username, PASSWORD),
            (disabled.username, "not the password"),
        )
    ]
    assert 401 == answers[0].status_code
    assert [_shape(answers[0])] * len(answers) == [_shape(answer) for answer in answers]
    assert "Incorrect username or password" == answers[0].json()["detail"]
    headers = disabled.headers
    assert 401 == checked.request("GET", ME, headers=headers).status_code


def test_case_086_password_bytes(checked: CheckedClient) -> None:
    """8 to 256 bytes count, each of them, as they were sent."""
    unit = "ab c-É"  # 7 bytes
    for password, expected in (
        ("zq x-Éy", 201),
        ("zq x-y7", 422),
        ("pass " * 12 + "1234", 201),
        ("p" * 71 + "q", 201),
        ("p" * 72 + "q", 201),
        ("p" * 128, 201),
        ("p" * 129, 201),
        ("p" * 256, 201),
        ("p" * 257, 422),
        (unit * 36 + "abcd", 201),
        (unit * 36 + "abcde", 422),
        ("p" * 4097, 422),
        ("\U0001f600" * 2, 201),
        (" spaces around it ", 201),
        ("Zo\u00eb's own words", 201),
    ):
        status, body = _register(checked, password=password)
        assert expected == status, f"{len(password.encode())} bytes: {password[:20]}"
        if status == 201:
            name = body["username"]
            assert 200 == _login(checked, name, password)
            assert 401 == _login(checked, name, password[:-1])
            assert 401 == _login(checked, name, password + "x")
            assert 401 == _login(checked, name, password[::-1] + "x")
    _, body = _register(checked, password="Zo\u00eb's own words")
    assert 401 == _login(checked, body["username"], "Zoe\u0308's own words")
    _, body = _register(checked, password=" spaces around it ")
    assert 401 == _login(checked, body["username"], "spaces around it")
    _, body = _register(checked, password="p" * 72 + "one")
    assert 401 == _login(checked, body["username"], "p" * 72 + "two")


def test_case_087_policy_and_hashes(stack: Stack, checked: CheckedClient) -> None:
    """Common passwords, the username and the product's are refused; hashes are argon2id."""
    for password in ("password1", "PASSWORD1", "12345678", "qwertyuiop", "iloveyou1", "valence1"):
        assert 422 == _register(checked, password=password)[0], password
    name = f"user-{uuid.uuid4().hex[:12]}"
    assert 422 == _register(checked, username=name, password=name.upper())[0]
    assert 201 == _register(checked, password="alllowercasewithoutdigits")[0]
    assert 201 == _register(checked, username=name)[0]
    [(hashed,)] = query(
        stack.database_url, "SELECT password_hash FROM users WHERE username = :name", name=name
    )
    memory, passes, lanes = map(
        int, re.match(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$", hashed).groups()
    )
    assert memory >= 19456
    assert passes >= 2
    assert 1 == lanes


def test_case_090_mass_assignment(stack: Stack, checked: CheckedClient) -> None:
    """What an account may not choose about itself is an unknown field."""
    for field, value in (
        ("is_superuser", True),
        ("is_active", True),
        ("is_verified", True),
        ("role", "admin"),
        ("roles", ["admin"]),
        ("id", str(uuid.uuid4())),
        ("created_at", "2020-01-01T00:00:00Z"),
        ("token_epoch", 0),
        ("password_hash", "$argon2id$"),
        ("username_key", "x"),
    ):
        status, body = _register(checked, **{field: value})
        assert 422 == status, field
        name = body["username"]
        found = "SELECT 1 FROM users WHERE username = :name OR is_superuser"
        assert [] == query(stack.database_url, found, name=name)


def test_case_091_what_is_anothers_does_not_exist(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Another's task answers exactly as one that never was; histories hold one's own alone."""
    other = stack.account()
    task_id = stack.submit(other, ["good", "bad"])
    stack.finish(other, task_id)
    shapes = [
        _shape(checked.request("GET", f"{TASK}/{identifier}", headers=account.headers))
        for identifier in (task_id, uuid.uuid4(), task_id.upper())
    ]
    assert [shapes[0]] * 3 == shapes
    assert (404, "Task not found") == (shapes[0][0], shapes[0][2]["detail"])
    assert 401 == checked.request("GET", f"{TASK}/{task_id}").status_code
    theirs = checked.request("GET", HISTORY, headers=other.headers).json()["items"]
    assert ["bad", "good"] == sorted(item["text"] for item in theirs)
    assert [] == checked.request("GET", HISTORY, headers=account.headers).json()["items"]
    page = checked.request("GET", f"{HISTORY}?limit=1", headers=other.headers).json()
    stolen = f"{HISTORY}?cursor={page['next_cursor']}"
    assert [] == checked.request("GET", stolen, headers=account.headers).json()["items"]
    assert 204 == checked.request("DELETE", HISTORY, headers=account.headers).status_code
    assert 2 == len(checked.request("GET", HISTORY, headers=other.headers).json()["items"])


def test_case_092_spoofed_identities(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Headers that name a user, a role or another path are not heard."""
    other = stack.account()
    spoofed = {
        "X-User-Id": other.id,
        "X-Forwarded-User": other.username,
        "X-Remote-User": other.username,
        "X-Original-URL": "/api/v1/sentiment/history",
        "X-Rewrite-URL": "/api/v1/sentiment/history",
        "X-Forwarded-Prefix": "/api/v1/admin",
        "X-Role": "admin",
    }
    assert 401 == checked.request("GET", ME, headers=spoofed).status_code
    answer = checked.request("GET", ME, headers=spoofed | account.headers)
    assert account.id == answer.json()["id"]


def test_case_095_forwarded_addresses(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Nobody escapes the login throttle by naming another address."""
    statuses = []
    addresses = (
        "127.0.0.1",
        "::1",
        "10.0.0.1, 1.2.3.4",
        "x",
        "1.2.3.4:80",
        "",
        "[::1]",
        "10.1.1.1",
    )
    for address in addresses:
        headers = {
            "X-Forwarded-For": address,
            "X-Real-IP": address,
            "Forwarded": f'for="{address}"',
            "True-Client-IP": address,
        }
        form = {"username": account.username, "password": "not the password"}
        statuses.append(checked.request("POST", LOGIN, data=form, headers=headers).status_code)
    assert [401] * 5 + [429] * 3 == statuses


@pytest.mark.parametrize("spelling", ["lower", "upper"])
def test_twenty_identical_registrations(
    stack: Stack, checked: CheckedClient, spelling: str
) -> None:
    """Of twenty at once, one is made and nineteen hear that it exists, in whatever case."""
    body = _registration()
    other = body | {"username": getattr(str(body["username"]), spelling)()}
    bodies = [json.dumps(body), json.dumps(other)] * 10
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda content: checked.post(REGISTER, content), bodies))
    assert [201] + [400] * 19 == sorted(answer.status_code for answer in answers)
    details = {answer.json().get("detail") for answer in answers}
    assert {None, "Username or email already registered"} == details


def test_login_throttle(stack: Stack, checked: CheckedClient) -> None:
    """The sixth login within a minute for one account is a 429, known account or not."""
    known, other = stack.account(), stack.account()
    for username in (known.username, f"nobody-{uuid.uuid4().hex}"):
        for _ in range(5):
            assert 401 == _login(checked, username, "not the password")
        for spelling in (username, username.upper(), username.replace("-", "\uff0d")):
            answer = checked.request(
                "POST", LOGIN, data={"username": spelling, "password": PASSWORD}
            )
            assert 429 == answer.status_code
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.headers["ratelimit-policy"].startswith('"login";q=5;w=60, ')
            assert answer.headers["ratelimit"].startswith('"login";r=0;t=')
    assert 200 == _login(checked, other.username, PASSWORD)
