"""Reliability cases 10 to 12 and 20: size limits, and what a rejection says."""

import gzip
import json
import uuid

import psutil
import pytest

from support.invariants import CheckedClient
from support.raw import answers, connect, message
from support.rows import query
from support.stack import Account, Stack
from support.waiting import until

REGISTER = "/api/v1/auth/register"
LOGIN = "/api/v1/auth/login"
ANALYZE = "/api/v1/sentiment/analyze"
BATCH = "/api/v1/sentiment/analyze/batch"

LIMITS = {REGISTER: 64 * 1024, LOGIN: 64 * 1024, ANALYZE: 256 * 1024, BATCH: 32 * 1024 * 1024}
JSON = b"Content-Type: application/json"
BOMB = gzip.compress(b" " * 64 * 1024 * 1024, compresslevel=1)


def _fields(path: str, account: Account) -> list[bytes]:
    kind = b"application/x-www-form-urlencoded" if path == LOGIN else b"application/json"
    return [
        b"Content-Type: " + kind,
        *(f"{name}: {value}".encode() for name, value in account.headers.items()),
    ]


def _judge_too_large(stack: Stack, path: str, data: bytes, limit: int) -> None:
    """A 413 comes, the server closes, and its memory did not grow by twice the limit."""
    to_auth = path in {REGISTER, LOGIN}
    process = psutil.Process(stack.running("auth" if to_auth else "inference")[0].pid)
    before = process.memory_info().rss
    with connect(stack.url(path)) as connection:
        part = 64 * 1024
        try:
            for start in range(0, len(data), part):
                connection.sendall(data[start : start + part])
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the end, as it should be
        (answer,) = answers(connection)
    assert (413, "close") == (answer.status, answer.headers["connection"])
    assert process.memory_info().rss - before < max(2 * limit, 8 * 1024 * 1024)


@pytest.mark.parametrize("path", LIMITS, ids=lambda path: path.rpartition("/")[2])
def test_case_010_declared_too_large(
    stack: Stack, checked: CheckedClient, account: Account, path: str
) -> None:
    """One byte over the limit, or 10 GB that never come, are refused by their announcement."""
    for length in (LIMITS[path] + 1, 10 * 1024**3, 10**30):
        head = message("POST", path, *_fields(path, account), b"Content-Length: %d" % length)
        (answer,) = checked.raw(path, head)
        expected = 400 if length == 10**30 else 413
        assert (expected, "close") == (answer.status, answer.headers["connection"])


@pytest.mark.parametrize("path", [REGISTER, LOGIN, ANALYZE])
def test_case_010_streamed_too_large(
    stack: Stack, checked: CheckedClient, account: Account, path: str
) -> None:
    """A body of ten times the limit in chunks ends at the limit; the connection with it."""
    chunk = b"2000\r\n" + b" " * 8192 + b"\r\n"
    body = chunk * (LIMITS[path] * 10 // 8192) + b"0\r\n\r\n"
    fields = [*_fields(path, account), b"Transfer-Encoding: chunked"]
    data = message("POST", path, *fields, body=body, close=False)
    _judge_too_large(stack, path, data, LIMITS[path])


def test_case_010_exactly_the_limit(checked: CheckedClient, account: Account) -> None:
    """A body of exactly the limit is read."""
    body = b'{"text": "good"}'
    answer = checked.post(ANALYZE, body + b" " * (LIMITS[ANALYZE] - len(body)), account)
    assert 200 == answer.status_code
    assert 413 == checked.post(ANALYZE, body + b" " * LIMITS[ANALYZE], account).status_code
    assert 422 == checked.post(REGISTER, b"1" + b" " * (LIMITS[REGISTER] - 1)).status_code


def test_case_010_nobody_streams_without_a_credential(checked: CheckedClient) -> None:
    """A body is not read before we know who sends it."""
    for path in (ANALYZE, BATCH):
        head = message("POST", path, JSON, b"Content-Length: 1000")
        (answer,) = checked.raw(path, head)
        assert 401 == answer.status


def test_case_010_a_body_that_stalls(stack: Stack) -> None:
    """A body that pauses for longer than the setting says is given up with a 400."""
    patience = 0.5
    stack = Stack(stack.folder / "impatient", stack.database_url, stack.redis_url)
    try:
        stack.start("auth", body_timeout_seconds=patience)
        fields = [JSON, b"Content-Length: 50"]
        data = message("POST", REGISTER, *fields, body=b'{"username":', close=False)
        with connect(stack.url(REGISTER)) as connection:
            connection.sendall(data)
            (answer,) = answers(connection)
        detail = json.loads(answer.body)["detail"]
        assert (400, "close") == (answer.status, answer.headers["connection"])
        assert "The request body did not arrive in time" == detail
    finally:
        stack.close()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"])
def test_case_011_compressed_bodies(checked: CheckedClient, account: Account, coding: str) -> None:
    """A compressed body is refused by its name and never inflated."""
    answer = checked.post(ANALYZE, BOMB, account, content_encoding=coding)
    assert 415 == answer.status_code
    assert 415 == checked.post(REGISTER, BOMB[:1000], content_encoding=coding).status_code


def test_case_012_text_length(checked: CheckedClient, account: Account) -> None:
    """10,000 characters are scored, whatever their bytes; one more is a 422 without the text."""
    for text in ("a" * 10_000, "\U0001f600" * 10_000, "good " * 2_000, "é" * 10_000):
        for escaped in (True, False):
            body = json.dumps({"text": text}, ensure_ascii=escaped).encode()
            assert 200 == checked.post(ANALYZE, body, account).status_code
    checked.secret("zzzzzz")
    for text in ("z" * 10_001, "z" * 200_000, "\U0001f600" * 10_001):
        answer = checked.post(ANALYZE, json.dumps({"text": text}, ensure_ascii=False), account)
        (error,) = answer.json()["errors"]
        assert (422, "body.text") == (answer.status_code, error["field"])
        assert "10000" in error["message"]
    assert 413 == checked.post(ANALYZE, json.dumps({"text": "z" * 10**6}), account).status_code


def test_case_012_blank_texts(checked: CheckedClient, account: Account) -> None:
    """A text with nothing in it is refused, one or in a batch."""
    for text in ("", " ", "\t\r\n", "\u00a0\u2003", "\u001c\u001f"):
        assert 422 == checked.post(ANALYZE, json.dumps({"text": text}), account).status_code
        batch = json.dumps({"texts": ["fine", text]})
        assert 422 == checked.post(BATCH, batch, account).status_code, repr(text)


def test_case_020_largest_and_smallest_batch(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """One text, and 100,000 identical ones, are accepted and end with every result."""
    for texts in (["good"], ["good"] * 100_000):
        answer = checked.post(BATCH, json.dumps({"texts": texts}), account)
        task_id = answer.json()["task_id"]
        assert (202, len(texts)) == (answer.status_code, answer.json()["total"])
        assert f"/api/v1/sentiment/task/{task_id}" == answer.headers["location"]
        task = stack.finish(account, task_id, timeout=120)
        assert ("completed", len(texts)) == (task["status"], task["done"])
        [(stored,)] = query(
            stack.database_url,
            "SELECT count(DISTINCT position) FROM batch_results WHERE batch_id = :id",
            id=uuid.UUID(task_id),
        )
        assert len(texts) == stored


def test_a_client_that_leaves_within_its_body(stack: Stack, checked: CheckedClient) -> None:
    """It is logged as gone (499), as nginx counts it, and is nobody's error."""
    auth = stack.running("auth")[0]
    before = len(auth.output())
    data = message("POST", REGISTER, JSON, b"Content-Length: 50", body=b"{", close=False)
    with connect(stack.url(REGISTER)) as connection:
        connection.sendall(data)
    until(lambda: '"request"' in auth.output()[before:], timeout=10)
    (event,) = [json.loads(line) for line in auth.output()[before:].splitlines()]
    assert ("request", 499) == (event["event"], event["status"])
