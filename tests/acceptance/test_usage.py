"""Daily quotas, and the usage that they go on from."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from support.invariants import CheckedClient
from support.limits import (
    ANALYZE,
    BODY,
    judge_keys,
    limited,
    policies,
    requests,
    tally,
    two_replicas,
)
from support.load import at_once
from support.rows import query
from support.servers import Servers
from support.stack import Service, Stack
from support.waiting import until

BATCH = f"{ANALYZE}/batch"
USAGE = "/api/v1/users/me/usage"
KEYS = "/api/v1/api-keys"
WITHIN = 5.0


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with two_replicas(tmp_path_factory.mktemp("limits")) as servers:
        yield servers


def test_a_days_texts_are_counted_and_survive_a_flush(
    replicas: Stack, checked: CheckedClient
) -> None:
    """Analyses cost one text, batches theirs; Redis forgets, the table of usage does not."""
    account = limited(replicas, texts_per_day=10)

    def batch(texts: int) -> httpx.Response:
        return checked.request(
            "POST", BATCH, json={"texts": ["good"] * texts}, headers=account.headers
        )

    def analyze() -> httpx.Response:
        return checked.post(ANALYZE, '{"text": "good"}', account)

    assert 429 == batch(11).status_code
    answer = batch(8)
    assert (202, 2) == (answer.status_code, policies(answer.headers, "ratelimit")["texts"]["r"])
    refused = batch(3)
    assert 429 == refused.status_code
    midnight = (24 - datetime.now(UTC).hour) * 3600
    assert 1 <= int(refused.headers["retry-after"]) <= midnight
    stored = "SELECT total FROM batches WHERE user_id = :id"
    assert [(8,)] == query(replicas.database_url, stored, id=account.id)
    assert [200, 200, 429, 429] == [analyze().status_code for _ in range(4)]
    counted = "SELECT sum(texts) FROM usage WHERE user_id = :id"
    until(lambda: [(10,)] == query(replicas.database_url, counted, id=account.id), timeout=15)
    taken = 0

    def refused_after_a_flush() -> bool:
        """Also when Redis has just been emptied, unless Postgres takes a quarter of a second."""
        nonlocal taken
        replicas.flush()
        statuses = [answer.status_code for answer in (batch(1), analyze(), analyze())]
        taken += sum(status != 429 for status in statuses)
        return statuses == [429] * 3

    until(refused_after_a_flush, timeout=15)
    limited(replicas, account, texts_per_day=12 + taken)
    until(lambda: 200 == analyze().status_code, timeout=WITHIN)
    assert [200, 429] == [analyze().status_code for _ in range(2)]
    judge_keys(replicas)


@pytest.mark.faults
def test_a_batch_that_is_not_stored_costs_nothing(
    servers: Servers, checked_servers: CheckedClient
) -> None:
    """What Postgres could not take is not taken from the day either."""
    account = limited(servers.stack, texts_per_day=10)
    body = {"texts": ["good"] * 10}
    url, headers = servers.stack.url(BATCH), account.headers
    assert 422 == httpx.post(url, json={"texts": []}, headers=headers).status_code
    warm = httpx.post(servers.stack.url(ANALYZE), json=BODY, headers=headers, timeout=20)
    assert 200 == warm.status_code
    limited(servers.stack, account, texts_per_day=11)

    def allowed() -> int:
        answer = httpx.post(servers.stack.url(BATCH), json={"texts": []}, headers=headers)
        assert 422 == answer.status_code
        answer = httpx.post(url, json={"texts": ["x"] * 12}, headers=headers)
        return policies(answer.headers, "ratelimit-policy")["texts"]["q"]

    until(lambda: 11 == allowed(), timeout=WITHIN)
    with servers.postgres.frozen():
        assert 503 == httpx.post(url, json=body, headers=headers, timeout=20).status_code
    until(
        lambda: 202 == httpx.post(url, json=body, headers=headers, timeout=20).status_code,
        timeout=15,
    )


def test_usage_is_told_by_day_key_and_route(replicas: Stack, checked: CheckedClient) -> None:
    """What was answered is counted, on whichever replica; what was refused is not."""
    account = replicas.account()
    made = checked.request("POST", KEYS, json={"name": "a key"}, headers=account.headers).json()
    assert {200: 6} == tally(at_once(requests(replicas, account.headers, 6)))
    assert {200: 4} == tally(at_once(requests(replicas, {"X-API-Key": made["key"]}, 4)))
    assert 202 == checked.post(BATCH, '{"texts": ["a", "b", "c"]}', account).status_code
    assert 422 == checked.post(ANALYZE, '{"text": ""}', account).status_code
    today = datetime.now(UTC).date().isoformat()

    def rows(path: str = USAGE) -> list[tuple[Any, ...]]:
        answer = checked.request("GET", path, headers=account.headers)
        assert 200 == answer.status_code, answer.text
        return sorted(
            (item["day"], item["route"], item["key_id"] or "", item["requests"], item["texts"])
            for item in answer.json()["items"]
        )

    expected = [
        (today, "analyze", "", 6, 6),
        (today, "analyze", made["id"], 4, 4),
        (today, "batch", "", 1, 3),
    ]
    until(lambda: expected == rows(), timeout=15, what="usage")
    assert expected == rows(f"{USAGE}?from={today}&to={today}")
    assert [] == rows(f"{USAGE}?to=2020-01-01")
    paged, cursor = [], ""
    while cursor is not None:
        path = f"{USAGE}?limit=1{cursor and f'&cursor={cursor}'}"
        page = checked.request("GET", path, headers=account.headers).json()
        paged += [item["route"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert ["analyze", "analyze", "batch"] == sorted(paged)
    other = replicas.account()
    assert [] == checked.request("GET", USAGE, headers=other.headers).json()["items"]
    for wrong in (
        "from=2020-01-01&to=2020-04-02",
        "from=2020-01-02&to=2020-01-01",
        "from=1577836800",
        "from=2020-1-1",
        "to=0000-01-01",
        "limit=0",
        "cursor=x",
        "cursor=AAAA",
        "days=3",
    ):
        answer = checked.request("GET", f"{USAGE}?{wrong}", headers=account.headers)
        assert 422 == answer.status_code, wrong
    for fine in ("to=0001-01-01", "to=9999-12-31", "from=2020-01-01&to=2020-04-01"):
        assert [] == rows(f"{USAGE}?{fine}")


def test_usage_is_written_at_the_end(replicas: Stack, checked: CheckedClient) -> None:
    """A replica that is told to stop writes what it counted a moment before."""
    account = replicas.account()
    replica: Service = replicas.start("inference")
    for _ in range(3):
        url = replica.url + ANALYZE
        assert 200 == httpx.post(url, json=BODY, headers=account.headers).status_code
    assert 0 == replica.stop()
    counted = "SELECT requests FROM usage WHERE user_id = :id"
    assert [(3,)] == query(replicas.database_url, counted, id=account.id)
    assert not re.search("usage_(lost|not_written)", replica.output())
