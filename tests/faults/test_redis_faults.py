"""Redis refused, frozen, killed and full: a doorbell and a cache, and nobody waits for it."""

import contextlib
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import redis

from support.load import at_once, dependency_up, timed
from support.probes import probed
from support.rows import judge_batch
from support.servers import Servers
from support.stack import Account, Stack
from support.waiting import until
from valence_common.celery_app import QUEUE

pytestmark = pytest.mark.faults

ANALYZE = "/api/v1/sentiment/analyze"
LOGOUT = "/api/v1/auth/logout"
REFRESH = "/api/v1/auth/refresh"
SHORT = 2.0
"""Seconds for what takes a fraction of one on a quiet machine; plain clients take 4, or wait on."""

Fault = Callable[[Servers], contextlib.AbstractContextManager[None]]
DOWN_OR_FROZEN = pytest.mark.parametrize(
    "fault",
    [lambda servers: servers.valkey.down(), lambda servers: servers.valkey.frozen()],
    ids=["refused", "frozen"],
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    services = {"auth": {}, "inference": {}, "batch_worker": {"concurrency": 1}}
    with Servers.started(tmp_path_factory.mktemp("servers"), **services) as servers:
        yield servers


@pytest.fixture(scope="module")
def account(servers: Servers) -> Account:
    return servers.stack.account()


def analyses(stack: Stack, account: Account, count: int) -> list[httpx.Request]:
    body = {"text": "I love this product!"}
    return [
        httpx.Request("POST", stack.url(ANALYZE), json=body, headers=account.headers)
        for _ in range(count)
    ]


@DOWN_OR_FROZEN
def test_case_023_and_024_nobody_waits_for_redis(servers: Servers, fault: Fault) -> None:
    """Analyze and login answer as ever; probes stay green; metrics and /health say what is up."""
    stack = servers.stack
    account = stack.account()
    web = stack.running("auth") + stack.running("inference")

    def slowest() -> float:
        answers = at_once(analyses(stack, account, 100))
        assert {200} == {answer.status for answer in answers}
        return max(answer.seconds for answer in answers)

    def first_are_soon() -> bool:
        """The first requests of an outage are those that could wait for Redis."""
        for service in web:
            until(lambda service=service: dependency_up(service, "redis"), timeout=10)
        usual = slowest()
        with fault(servers):
            return slowest() < usual + SHORT

    # Waiting would show in every outage, a hiccup of the machine does not.
    until(first_are_soon, timeout=60, what="the first 100 analyses of an outage answered soon")
    with fault(servers), probed(web):
        logins = [timed(lambda: stack.login(account.username)) for _ in range(5)]
        assert [200] * 5 == [login.status for login in logins]
        assert max(login.seconds for login in logins) < SHORT
        for service in web:
            assert 200 == httpx.get(f"{service.internal_url}/readyz").status_code
            until(lambda service=service: not dependency_up(service, "redis"), timeout=5)
            assert dependency_up(service, "postgres")
        health = stack.get("/health")
        assert (200, "degraded", "down") == (
            health.status_code,
            health.json()["status"],
            health.json()["redis"],
        )
    for service in web:
        until(lambda service=service: dependency_up(service, "redis"), timeout=5)


@DOWN_OR_FROZEN
def test_case_025_login_is_throttled_without_redis(servers: Servers, fault: Fault) -> None:
    """Each process counts by itself: never unlimited, never an error."""
    name = servers.stack.register().json()["username"]
    with fault(servers):
        answers = [servers.stack.login(name, "wrong password") for _ in range(6)]
    assert [401] * 5 + [429] == [answer.status_code for answer in answers]
    assert "retry-after" in answers[-1].headers


@DOWN_OR_FROZEN
def test_case_025_logged_out_is_refused_without_redis(servers: Servers, fault: Fault) -> None:
    """A session that ended before the outage, or within it, is not believed again."""
    stack = servers.stack
    before, within, alive = stack.account(), stack.account(), stack.account()

    def statuses(account: Account) -> set[int]:
        paths = ("/api/v1/users/me", "/api/v1/sentiment/history")
        return {stack.get(path, account).status_code for path in paths}

    assert {200} == statuses(before) == statuses(within) == statuses(alive)
    assert 204 == stack.post(LOGOUT, before).status_code
    until(lambda: statuses(before) == {401}, timeout=10)
    with fault(servers):
        assert {401} == statuses(before)
        assert 204 == stack.post(LOGOUT, within).status_code
        until(lambda: statuses(within) == {401}, timeout=10)
        assert {200} == statuses(alive)
        for account, expected in ((before, 401), (within, 401), (alive, 200)):
            body = {"refresh_token": account.refresh_token}
            assert expected == stack.post(REFRESH, json=body).status_code
    assert {401} == statuses(before) == statuses(within)


@DOWN_OR_FROZEN
def test_case_026_batch_is_accepted_without_redis(servers: Servers, fault: Fault) -> None:
    """202 within a second or so, the rows are there, and it completes once Redis is back."""
    account = servers.stack.account()
    texts = [f"text {n}" for n in range(1000)]
    with fault(servers):
        started = time.monotonic()
        task_id = servers.stack.submit(account, texts)
        assert time.monotonic() - started < SHORT
        assert 1000 == servers.stack.task(account, task_id)["total"]
    servers.stack.finish(account, task_id, timeout=30)
    judge_batch(servers.postgres.url(), task_id, texts)


def test_case_027_worker_survives_restarts_of_redis(servers: Servers, account: Account) -> None:
    """After each of three outages an idle worker hears again, without being restarted itself."""
    [worker] = servers.stack.running("batch_worker")
    for outage in (0.0, 1.0, 2.0):
        with servers.valkey.down():
            time.sleep(outage)
        task_id = servers.stack.submit(account, ["good", "bad"])
        assert "completed" == servers.stack.finish(account, task_id, timeout=30)["status"]
    assert worker.process.poll() is None
    assert "Traceback" not in worker.output()


def test_case_027_worker_survives_reset_connections(servers: Servers, account: Account) -> None:
    """Connections that something in between drops are made anew."""
    with servers.valkey.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    task_id = servers.stack.submit(account, ["good", "bad"])
    assert "completed" == servers.stack.finish(account, task_id, timeout=30)["status"]


def test_case_028_full_redis_keeps_the_queue(servers: Servers) -> None:
    """Where we start it, Redis refuses to write rather than forget what is queued."""
    [worker] = servers.stack.running("batch_worker")
    with servers.valkey.client() as client:
        assert {"maxmemory-policy": "noeviction"} == client.config_get("maxmemory-policy")
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_000_000)
        client.rpush(f"{QUEUE}.test", *range(50))
        try:
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                _fill(client)
            assert 50 == client.llen(f"{QUEUE}.test")
        finally:
            client.config_set("maxmemory", 0)
            client.flushall()
    assert worker.process.poll() is None
    servers.stack.canary()


def _fill(client: redis.Redis) -> None:
    for n in range(100):
        client.set(f"valence:test:{n}", "x" * 50_000)
