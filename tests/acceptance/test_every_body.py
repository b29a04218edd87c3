"""Reliability cases 1 to 15 for every documented operation, new ones included."""

import gzip
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from support import credentials
from support.invariants import CheckedClient
from support.operations import JSON, Operation, operations
from support.raw import message
from support.stack import Account, Stack

OPERATIONS = operations()
BODIES = [o for o in OPERATIONS if o.media_type == JSON]
FORMS = [o for o in OPERATIONS if o.media_type not in {JSON, None}]
QUERIES = [o for o in OPERATIONS if o.queries]
SWITCHED_OFF = {"GET /api/v1/auth/oidc/callback"}  # without a provider it knows no query
NOT_OF_THE_TYPE: dict[str, list[Any]] = {
    "string": [7, True, None, [], {}, ["x"]],
    "integer": [True, "7", 7.5, 7.0, None, [], {}],
    "number": [True, "7", None, [], {}],
    "boolean": [1, 0, "true", None, [], {}],
    "array": ["x", 7, True, None, {}],
    "object": ["x", 7, True, None, []],
}


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Account:
    """Somebody who gets past every gate."""
    return credentials.admin(stack)


def _path(operation: Operation) -> str:
    return operation.filled(str(uuid.uuid4()))


def _refuse(
    checked: CheckedClient, operation: Operation, admin: Account, body: bytes | str, **headers: str
) -> dict[str, Any]:
    """Send a body that must be refused; returns the problem."""
    named = {"content-type": JSON, **admin.headers}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    path = _path(operation)
    answer = checked.request(operation.method, path, content=body, headers=named)
    assert answer.status_code in {400, 413, 415, 422}, f"{operation}: {answer.status_code} {body!r}"
    return dict(answer.json())


def _status(*arguments: Any, **headers: str) -> int:
    return int(_refuse(*arguments, **headers)["status"])


def test_the_document_has_bodies() -> None:
    """What follows walks over something."""
    assert {"POST /api/v1/auth/register", "POST /api/v1/sentiment/analyze"} <= {*map(str, BODIES)}


def test_case_001_not_a_number_in_any_body(checked: CheckedClient, admin: Account) -> None:
    """NaN, Infinity and numbers out of range, in fields known and unknown."""
    for operation in BODIES:
        for literal in ("NaN", "Infinity", "-Infinity", "1e999"):
            for name in ("unknown", *operation.properties):
                body = f'{{"{name}": {literal}}}'
                assert 422 == _status(checked, operation, admin, body)
            assert 422 == _status(checked, operation, admin, literal)


@pytest.mark.parametrize("hole", [r"\ud800", r"x\udfffy", r"\u0000", r"before\u0000after"])
def test_case_003_holes_in_any_body(checked: CheckedClient, admin: Account, hole: str) -> None:
    """Lone surrogates and NUL, in names and values."""
    for operation in BODIES:
        for name in ("unknown", *operation.properties):
            assert 422 == _status(checked, operation, admin, f'{{"{name}": "{hole}"}}')
            assert 422 == _status(checked, operation, admin, f'{{"{name}": ["{hole}"]}}')
        assert 422 == _status(checked, operation, admin, f'{{"{hole}": 1}}')


def test_case_006_depth_bombs_in_any_body(checked: CheckedClient, admin: Account) -> None:
    """Too deep is refused before anything is looked at, however long it goes on."""
    for operation in BODIES:
        for depth in (33, 1_000, 20_000):
            assert _status(checked, operation, admin, "[" * depth) in {400, 413}
            nested = '{"unknown":' + "[" * depth + "]" * depth + "}"
            assert _status(checked, operation, admin, nested) in {400, 413}


def test_case_007_encodings_of_any_body(checked: CheckedClient, admin: Account) -> None:
    """UTF-8 without a mark, and nothing else."""
    for operation in BODIES:
        for body in (b'{"x": "\xff\xfe"}', "{}".encode("utf-16"), "\ufeff{}".encode(), b"\xff"):
            assert 400 == _status(checked, operation, admin, body)
        for charset in ("utf-7", "latin-1", "utf-16"):
            kind = f"{JSON}; charset={charset}"
            assert 415 == _status(checked, operation, admin, "{}", content_type=kind)


def test_case_009_content_types_of_any_body(checked: CheckedClient, admin: Account) -> None:
    """JSON is called JSON, and a form a form."""
    for operation in BODIES:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            assert 415 == _status(checked, operation, admin, "{}", content_type=kind)
    for operation in FORMS:
        for kind in ("text/plain", JSON, "multipart/form-data; boundary=x", ""):
            assert 415 == _status(checked, operation, admin, "x=y", content_type=kind)


def test_case_009_two_content_types(checked: CheckedClient, admin: Account) -> None:
    """A kind that is sent twice is none: a proxy may have read the other."""
    token = b"Authorization: Bearer " + admin.token.encode()
    length = b"Content-Length: 2"
    for operation in BODIES:
        for fields in (
            [b"Content-Type: application/json", b"Content-Type: application/json"],
            [b"Content-Type: application/json", b"Content-Type: text/plain"],
            [b"Content-Type: application/json", b"Content-Encoding:", b"Content-Encoding: gzip"],
        ):
            path = _path(operation)
            head = message(operation.method, path, token, length, *fields, body=b"{}")
            assert [415] == [answer.status for answer in checked.raw(path, head)]


def test_case_011_compression_of_any_body(checked: CheckedClient, admin: Account) -> None:
    """No compressed body is inflated."""
    bomb = gzip.compress(b"[" * 1_000_000)
    for operation in BODIES + FORMS:
        for encoding in ("gzip", "deflate", "br", "zstd", "identity, gzip"):
            kind = str(operation.media_type)
            answer = _status(
                checked, operation, admin, bomb, content_encoding=encoding, content_type=kind
            )
            assert 415 == answer


def test_case_013_no_body_is_echoed(checked: CheckedClient, admin: Account) -> None:
    """What stands in a refused body comes back nowhere, whichever field it stood in."""
    secret = checked.secret("S3ntinel-in-a-body")
    for operation in BODIES:
        for name in ("unknown", *operation.properties):
            for value in ({secret: secret}, [[secret]], [{"a": secret}]):
                _refuse(checked, operation, admin, json.dumps({name: value}))
        _refuse(checked, operation, admin, json.dumps({secret: secret}))
        _refuse(checked, operation, admin, json.dumps(secret))
        _refuse(checked, operation, admin, f'{{"{secret}": ')


def _wrong_types(operation: Operation) -> Iterator[tuple[str, Any]]:
    for name, kinds in operation.properties.items():
        if kinds:
            for kind in kinds - {"null"}:
                for value in NOT_OF_THE_TYPE[kind]:
                    if not any(_is(value, other) for other in kinds):
                        yield name, value


def _is(value: Any, kind: str) -> bool:
    return value not in NOT_OF_THE_TYPE.get(kind, []) if kind != "null" else value is None


def test_case_015_strict_types_in_any_body(checked: CheckedClient, admin: Account) -> None:
    """Each field has its type, and no other will do; no other field is known."""
    for operation in BODIES:
        for name, value in _wrong_types(operation):
            problem = _refuse(checked, operation, admin, json.dumps({name: value}))
            fields = [error["field"] for error in problem["errors"]]
            assert any(field.startswith(f"body.{name}") for field in fields), (name, value, fields)
        problem = _refuse(checked, operation, admin, '{"unknown": 1}')
        assert "extra_forbidden" in {error["rule"] for error in problem["errors"]}
        for body in ("[]", "null", "true", '"x"', "7", "[{}]"):
            assert 422 == _status(checked, operation, admin, body), body
        twice = '{"a": 1, "a": 2}'
        assert 422 == _status(checked, operation, admin, twice)


def test_case_004_numbers_in_any_query(checked: CheckedClient, admin: Account) -> None:
    """What is out of a column's reach, negative or no number never reaches it."""
    assert {str(operation) for operation in QUERIES} > SWITCHED_OFF
    for operation in QUERIES:
        path = _path(operation)
        if str(operation) in SWITCHED_OFF:
            answer = checked.request(operation.method, path, headers=admin.headers)
            assert 404 == answer.status_code
            continue
        for name, kinds in operation.queries.items():
            wrong = ["\0", "x\0y"]
            if kinds & {"integer", "number"}:
                wrong += ["-1", "1e400", str(10**22), "NaN", "true", "", "1\0", "9" * 400]
            for value in wrong:
                answer = checked.request(
                    operation.method, path, params={name: value}, headers=admin.headers
                )
                assert 422 == answer.status_code, (str(operation), name, value)
