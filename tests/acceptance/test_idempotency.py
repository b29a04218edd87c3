"""Reliability case 115: a request repeated with its Idempotency-Key makes no second batch."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support import locks
from support.limits import limited
from support.rows import query
from support.servers import Servers
from support.stack import Account, Stack
from support.waiting import until

BATCH = "/api/v1/sentiment/analyze/batch"
BODY = '{"texts": ["good", "bad", "so so"]}'
JSON, CSV = "application/json", "text/csv"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Patient with Redis, so that it can be frozen while a request goes on."""
    settings = {"redis_timeout_seconds": 10, "database_timeout_seconds": 60}
    with Servers.started(
        tmp_path_factory.mktemp("servers"), auth={}, inference=settings
    ) as servers:
        yield servers


def post(
    stack: Stack,
    account: Account,
    key: str,
    body: str | bytes = BODY,
    kind: str = JSON,
    **options: Any,
) -> httpx.Response:
    headers = account.headers | {"Idempotency-Key": key, "Content-Type": kind}
    url = stack.url(BATCH)
    return httpx.post(
        url, content=body, headers=headers, timeout=60, trust_env=False, params=options
    )


def batches(stack: Stack, account: Account) -> int:
    [(count,)] = query(
        stack.database_url, "SELECT count(*) FROM batches WHERE user_id = :id", id=account.id
    )
    return int(count)


def judge_replay(first: httpx.Response, again: httpx.Response) -> None:
    assert (202, first.content) == (again.status_code, again.content)
    assert first.headers["location"] == again.headers["location"]
    assert "true" == again.headers["idempotent-replayed"]


def test_case_115_twenty_at_once(stack: Stack, account: Account) -> None:
    """One batch; all 202 are the same; who comes while it is accepted gets 409."""
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda _: post(stack, account, "twenty"), range(20)))
    assert {answer.status_code for answer in got} <= {202, 409}
    for answer in got:
        assert ("retry-after" in answer.headers) == (answer.status_code == 409)
    taken = [answer for answer in got if answer.status_code == 202]
    assert 1 == len({(answer.content, answer.headers["location"]) for answer in taken})
    assert 1 == sum("idempotent-replayed" not in answer.headers for answer in taken)
    judge_replay(taken[0], post(stack, account, "twenty"))
    assert 1 == batches(stack, account)


def test_case_115_a_replay_costs_no_texts(stack: Stack) -> None:
    """The day's texts are taken once."""
    account = limited(stack, texts_per_day=5)
    first = post(stack, account, "cheap")
    assert (202, None) == (first.status_code, first.headers.get("idempotent-replayed"))
    for _ in range(3):
        judge_replay(first, post(stack, account, "cheap"))
    assert 202 == post(stack, account, "other", '{"texts": ["a", "b"]}').status_code
    assert 429 == post(stack, account, "one more", '{"texts": ["a"]}').status_code
    judge_replay(first, post(stack, account, "cheap"))


def test_case_115_another_request(stack: Stack, account: Account) -> None:
    """A key that is used for another body, kind or option is refused."""
    rows = "text\na\nb\n"
    first = post(stack, account, "mine", rows, CSV)
    for body, kind, options in (
        ("text\na\nc\n", CSV, {}),
        ('"text"\n"a"\n"b"\n', "application/x-ndjson", {}),
        (rows, CSV, {"priority": 6}),
        (rows, CSV, {"header": "false"}),
        (BODY, JSON, {}),
    ):
        answer = post(stack, account, "mine", body, kind, **options)
        (error,) = answer.json()["errors"]
        assert (422, "header.idempotency-key") == (answer.status_code, error["field"])
    judge_replay(first, post(stack, account, "mine", rows, f"{CSV}; charset=utf-8", priority=5))
    assert 1 == batches(stack, account)


def test_case_115_a_form_is_the_file_in_it(stack: Stack, account: Account) -> None:
    """Each client makes up a new boundary when it sends a form again."""

    def form(boundary: str) -> httpx.Response:
        part = 'Content-Disposition: form-data; name="file"; filename="a.csv"'
        body = f"--{boundary}\r\n{part}\r\n\r\ntext\na\n\r\n--{boundary}--\r\n"
        return post(stack, account, "form", body, f"multipart/form-data; boundary={boundary}")

    judge_replay(form("one"), form("another"))


def test_case_115_a_key_is_its_user_s(stack: Stack, account: Account) -> None:
    """Whoever else uses it gets a batch of their own."""
    other = stack.account()
    answers = [post(stack, who, "shared") for who in (account, other)]
    assert [202, 202] == [answer.status_code for answer in answers]
    assert 2 == len({answer.headers["location"] for answer in answers})
    assert all("idempotent-replayed" not in answer.headers for answer in answers)


def test_case_115_a_day_later(stack: Stack, account: Account) -> None:
    """After 24 hours a key is a new one; a minute before it is not."""
    first = post(stack, account, "old")
    age = "UPDATE idempotency_keys SET created_at = now() - CAST(:age AS interval)"
    query(stack.database_url, f"{age} WHERE user_id = :id", id=account.id, age="23:59")
    judge_replay(first, post(stack, account, "old"))
    query(stack.database_url, f"{age} WHERE user_id = :id", id=account.id, age="24:01")
    second = post(stack, account, "old", '{"texts": ["another"]}')
    assert (202, None) == (second.status_code, second.headers.get("idempotent-replayed"))
    judge_replay(second, post(stack, account, "old", '{"texts": ["another"]}'))
    assert 2 == batches(stack, account)


@pytest.mark.parametrize(
    ("key", "same"),
    [("a b", '"a b"'), (r"\x", r'"\\x"'), ("k" * 255, f'"{"k" * 255}"'), ('q"', r'"q\""')],
)
def test_case_115_quoted_or_not(stack: Stack, account: Account, key: str, same: str) -> None:
    """A key is the same in the quotes of a structured field (RFC 8941)."""
    judge_replay(post(stack, account, key), post(stack, account, same))


@pytest.mark.parametrize("key", ["", '""', "k" * 256, f'"{"k" * 256}"', '"open', '"a"b', "ä"])
def test_case_115_no_key(stack: Stack, account: Account, key: str) -> None:
    """What is no key is refused, and makes no batch."""
    headers = account.headers | {"Content-Type": JSON}
    fields = [*headers.items(), ("Idempotency-Key", key.encode("latin-1"))]
    answer = httpx.post(stack.url(BATCH), content=BODY, headers=fields, trust_env=False)
    assert 422 == answer.status_code
    twice = [*headers.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    answer = httpx.post(stack.url(BATCH), content=BODY, headers=twice, trust_env=False)
    assert 422 == answer.status_code
    assert 0 == batches(stack, account)


@pytest.mark.faults
def test_case_115_in_flight_and_a_crash_before_the_answer(servers: Servers) -> None:
    """While the first is being stored its user's others get 409, and no other user waits; killed
    between commit and answer, the same request gets the batch that was stored.
    """
    stack, url = servers.stack, servers.postgres.url()
    account, other = stack.account(), stack.account()
    for each in (account, other):
        assert 202 == post(stack, each, "warm").status_code  # their limits are known
    lost: list[Exception] = []

    def send() -> None:
        try:
            post(stack, account, "crash")
        except httpx.TransportError as error:
            lost.append(error)

    sender = threading.Thread(target=send)
    [service] = stack.running("inference")
    with locks.inserts_held(url, "batches", when=f"NEW.user_id = '{account.id}'"):
        sender.start()
        locks.wait_until_held(url, "INSERT INTO batches")
        early = post(stack, account, "crash")
        assert (409, "1") == (early.status_code, early.headers["retry-after"])
        assert 202 == post(stack, other, "crash").status_code
        redis_frozen = servers.valkey.frozen()
        redis_frozen.__enter__()
    try:
        until(lambda: batches(stack, account) == 2, timeout=30, interval=0.01)
        service.kill()
        sender.join(30)
    finally:
        redis_frozen.__exit__(None, None, None)
    assert 1 == len(lost)
    stack.start("inference")
    answer = post(stack, account, "crash")
    assert (202, "true") == (answer.status_code, answer.headers["idempotent-replayed"])
    assert 3 == answer.json()["total"]
    assert 2 == batches(stack, account)


def test_case_115_a_deleted_batch_takes_its_key_with_it(stack: Stack, account: Account) -> None:
    """No answer names a batch that is gone, not even before the workers have deleted its rows."""
    first = post(stack, account, "k").json()["task_id"]
    gone = stack.request("DELETE", f"/api/v1/sentiment/task/{first}", headers=account.headers)
    assert 204 == gone.status_code
    second = post(stack, account, "k")
    assert (202, None) == (second.status_code, second.headers.get("idempotent-replayed"))
    assert first != second.json()["task_id"]
