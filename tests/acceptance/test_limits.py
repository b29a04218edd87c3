"""Reliability cases 25 and 61: limits per user and key, across replicas and without Redis."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.invariants import CheckedClient
from support.limits import ANALYZE, judge_keys, limited, policies, requests, tally, two_replicas
from support.load import Timed, at_once
from support.rows import query
from support.servers import Servers
from support.stack import Stack
from support.waiting import until

BATCH = f"{ANALYZE}/batch"
HISTORY = "/api/v1/sentiment/history"
KEYS = "/api/v1/api-keys"
WITHIN = 5.0


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with two_replicas(tmp_path_factory.mktemp("limits")) as servers:
        yield servers


def storm(stack: Stack, headers: dict[str, str]) -> list[Timed]:
    """200 analyses over the replicas: one to each, so that the user is known, then the rest."""
    one, other, *rest = requests(stack, headers, 200)
    return [*at_once([one]), *at_once([other]), *at_once(rest)]


def judge_headers(answers: list[Timed]) -> None:
    """Every answer says what the limits are, what is left, and when to come back."""
    for answer in answers:
        policy = policies(answer.headers, "ratelimit-policy")
        left = policies(answer.headers, "ratelimit")
        assert policy.keys() == left.keys() == {"analyze", "texts"}
        for name, state in left.items():
            assert 0 <= state["r"] <= policy[name]["q"] + policy[name].get("burst", 0)
            assert 0 <= state["t"] <= 86_400
        assert ("retry-after" in answer.headers) == (answer.status == 429)
        if answer.status == 429:
            assert 0 == left["analyze"]["r"]
            assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_case_061_exactness(replicas: Stack, checked: CheckedClient) -> None:
    """Of 200 at once over two replicas exactly 60 pass, whatever the time that takes."""
    account = limited(replicas, per_minute=1, burst=59)
    for _ in range(2):
        assert 200 == checked.request("GET", HISTORY, headers=account.headers).status_code
    answers = storm(replicas, account.headers)
    assert {200: 60, 429: 140} == tally(answers)
    judge_headers(answers)
    judge_keys(replicas)
    stored = "SELECT count(*) FROM predictions WHERE user_id = :id"
    assert [(60,)] == query(replicas.database_url, stored, id=account.id)


def test_case_061_sixty_a_minute(replicas: Stack, checked: CheckedClient) -> None:
    """60 a minute without burst: 60 at once, and one more for each second that it took."""
    account = limited(replicas, per_minute=60, burst=0)
    started = time.monotonic()
    answers = storm(replicas, account.headers)
    refilled = int(time.monotonic() - started) + 1
    passed = tally(answers)[200]
    assert 60 <= passed <= 60 + refilled
    assert {200: passed, 429: 200 - passed} == tally(answers)
    judge_headers(answers)


def test_case_061_a_counter_without_an_end_gets_one(
    replicas: Stack, checked: CheckedClient
) -> None:
    """A client that died between counting and dating locks nobody out: there is no between."""
    account = limited(replicas, per_minute=5)
    at_once(requests(replicas, account.headers, 10))
    with replicas.redis() as client:
        names = list(client.scan_iter(f"valence:limit:*{account.id}*"))
        assert 2 == len(names)
        for name in names:
            client.persist(name)
    limited(replicas, account, per_minute=1000)
    until(
        lambda: 200 == checked.post(ANALYZE, '{"text": "good"}', account).status_code,
        timeout=WITHIN,
    )
    judge_keys(replicas)


def test_limits_follow_the_row(replicas: Stack, checked: CheckedClient) -> None:
    """What an administrator sets holds everywhere within seconds."""
    account = limited(replicas, per_minute=1, burst=0)

    def quotas() -> set[int]:
        answers = at_once(requests(replicas, account.headers, 2))
        return {policies(a.headers, "ratelimit-policy")["analyze"]["q"] for a in answers}

    assert {1} == quotas()
    limited(replicas, account, per_minute=7)
    until(lambda: {7} == quotas(), timeout=WITHIN)


def test_batches_have_a_rate_and_reads_have_none(replicas: Stack, checked: CheckedClient) -> None:
    """Taking a batch is counted, looking at it is not; a refusal stores nothing."""
    account = limited(replicas, per_minute=1, burst=1)
    body = '{"texts": ["good", "bad"]}'
    accepted = [checked.post(BATCH, body, account) for _ in range(2)]
    assert [202, 202] == [answer.status_code for answer in accepted]
    assert "batch" in policies(accepted[1].headers, "ratelimit")
    refused = checked.post(BATCH, body, account)
    assert (429, "Too many requests") == (refused.status_code, refused.json()["detail"])
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    path = f"/api/v1/sentiment/task/{accepted[0].json()['task_id']}"
    for _ in range(20):
        assert 200 == checked.request("GET", path, headers=account.headers).status_code
    stored = "SELECT count(*) FROM batches WHERE user_id = :id"
    assert [(2,)] == query(replicas.database_url, stored, id=account.id)
    assert 200 == checked.post(ANALYZE, '{"text": "good"}', account).status_code


def test_a_key_has_a_limit_of_its_own(replicas: Stack, checked: CheckedClient) -> None:
    """Its user, and their other keys, go on."""
    account = replicas.account()
    body = {"name": "slow", "per_minute": 2}
    key = checked.request("POST", KEYS, json=body, headers=account.headers).json()["key"]
    answers = at_once(requests(replicas, {"X-API-Key": key}, 6))
    assert {200: 2, 429: 4} == tally(answers)
    assert 2 == policies(answers[0].headers, "ratelimit-policy")["key"]["q"]
    assert {200: 6} == tally(at_once(requests(replicas, account.headers, 6)))


@pytest.mark.parametrize("fault", ["down", "frozen"])
@pytest.mark.faults
def test_case_025_limits_hold_without_redis(
    servers: Servers, checked_servers: CheckedClient, fault: str
) -> None:
    """Each replica counts by itself: never unlimited, never an error, never without headers."""
    account = limited(servers.stack, per_minute=1, burst=9)
    keyed = limited(servers.stack, per_minute=1, burst=9)
    made = checked_servers.request("POST", KEYS, json={"name": "a key"}, headers=keyed.headers)
    credentials = (account.headers, {"X-API-Key": made.json()["key"]})
    for headers in credentials:  # so that both know their limits, however slow the machine is
        until(
            lambda h=headers: {200} == set(tally(at_once(requests(servers.stack, h, 2)))), timeout=9
        )
    with getattr(servers.valkey, fault)():
        for headers in credentials:
            answers = at_once(requests(servers.stack, headers, 60))
            assert {200: 20, 429: 40} == tally(answers)
            judge_headers(answers)


@pytest.mark.parametrize("fault", ["down", "frozen"])
@pytest.mark.faults
def test_case_025_revoked_keys_without_redis(
    servers: Servers, checked_servers: CheckedClient, fault: str
) -> None:
    """Revoked before the outage or during it: 401 within five seconds, never 200 after."""
    account = servers.stack.account()
    before, during, alive = (
        checked_servers.request("POST", KEYS, json={"name": n}, headers=account.headers).json()
        for n in ("before", "during", "alive")
    )

    def statuses(key: dict[str, Any]) -> set[int]:
        return set(tally(at_once(requests(servers.stack, {"X-API-Key": key["key"]}, 2))))

    assert {200} == statuses(before) == statuses(during) == statuses(alive)
    path = f"{KEYS}/{before['id']}"
    assert 204 == checked_servers.request("DELETE", path, headers=account.headers).status_code
    until(lambda: {401} == statuses(before), timeout=WITHIN)
    with getattr(servers.valkey, fault)():
        assert {401} == statuses(before)
        path = f"{KEYS}/{during['id']}"
        assert 204 == checked_servers.request("DELETE", path, headers=account.headers).status_code
        until(lambda: {401} == statuses(during), timeout=WITHIN)
        assert {200} == statuses(alive)
