"""Webhooks from the request to the receiver and the delivery log, with real services."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from pydantic import SecretStr

from support.receiver import Receiver, signed_with
from support.rows import query
from support.servers import Servers
from support.stack import Account, Service, Stack
from support.waiting import until
from support.webhooks import attempts, hurry
from valence_common.batches import end_batch
from valence_common.db import Database

ADDRESS = "127.0.0.2"
ALLOWED = {
    "webhooks_enabled": True,
    "webhooks_allow_http": True,
    "webhooks_allowed_networks": f"{ADDRESS}/32",
}
SECRETS = "/api/v1/webhooks/secret"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("webhooks")
    with Servers.started(folder, auth={}, inference=ALLOWED) as servers:
        yield servers


@pytest.fixture(scope="module")
def stack(shared_web: Stack) -> Iterator[Stack]:
    with shared_web.beside(inference=ALLOWED) as stack:
        yield stack


@pytest.fixture
def worker(stack: Stack) -> Service:
    """The worker that an earlier test left running, or else a new one."""
    running = stack.running("batch_worker")
    return running[0] if running else start_worker(stack)


@pytest.fixture
def without_worker(stack: Stack) -> Iterator[Stack]:
    """No worker before the test, and none after."""
    stack.stop_workers()
    yield stack
    stack.stop_workers()


@pytest.fixture
def fragile(servers: Servers) -> Iterator[Stack]:
    """Services whose workers the test kills."""
    yield servers.stack
    servers.stack.stop_workers()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(address=ADDRESS) as receiver:
        yield receiver


def start_worker(stack: Stack, *, ready: bool = True, **more: Any) -> Service:
    settings = {"concurrency": 1, "sweep_seconds": 0.3, "webhook_timeout_seconds": 5}
    return stack.start("batch_worker", ready=ready, **{**ALLOWED, **settings, **more})


def make_secret(stack: Stack, account: Account) -> str:
    answer = stack.post(SECRETS, account)
    assert 201 == answer.status_code, answer.text
    return str(answer.json()["secret"])


def submit(stack: Stack, account: Account, url: str, texts: tuple[str, ...] = ("good",)) -> str:
    body = {"texts": list(texts), "webhook_url": url}
    answer = stack.post("/api/v1/sentiment/analyze/batch", account, json=body)
    assert 202 == answer.status_code, answer.text
    return str(answer.json()["task_id"])


def log(stack: Stack, account: Account, task_id: str) -> list[dict[str, Any]]:
    answer = stack.get(f"/api/v1/sentiment/task/{task_id}/deliveries", account)
    assert 200 == answer.status_code, answer.text
    return list(answer.json()["items"])


def wait_attempted(stack: Stack, account: Account, task_id: str) -> dict[str, Any]:
    """Wait for the first attempt; return the batch's only delivery."""
    until(lambda: any(d["attempts"] for d in log(stack, account, task_id)), timeout=90)
    [delivery] = log(stack, account, task_id)
    return delivery


def test_batch_that_ends_is_notified(stack: Stack, worker: Service, receiver: Receiver) -> None:
    """Signed with the user's secret, with the batch's numbers and none of its texts."""
    account = stack.account()
    secret = make_secret(stack, account)
    task_id = submit(stack, account, receiver.url("/ok?who=me"), ("a canary is good", "bad"))
    delivery = wait_attempted(stack, account, task_id)
    [request] = receiver.got("/ok?who=me")
    assert signed_with(secret, request)
    message = json.loads(request.body)
    task = stack.task(account, task_id)
    assert (delivery["id"], "batch.completed") == (message["id"], message["type"])
    assert {"total": 2, "done": 2, "failed": 0, "status": "completed", "task_id": task_id} == {
        name: message["data"][name] for name in ("total", "done", "failed", "status", "task_id")
    }
    for name in ("created_at", "started_at", "finished_at"):
        assert task[name] == message["data"][name]
    assert b"canary" not in request.body
    assert ("delivered", None) == (delivery["status"], delivery["next_attempt_at"])
    [attempt] = delivery["attempts"]
    assert (1, 200, None) == (attempt["number"], attempt["status_code"], attempt["error"])
    metrics = httpx.get(f"{worker.internal_url}/metrics").text
    assert 'valence_webhook_attempts_total{outcome="delivered"}' in metrics
    assert "valence_webhook_deliveries_due " in metrics
    for service in stack.services:
        for word in (secret, "who=me", ADDRESS):
            assert word not in service.output()


def test_rotation_signs_with_all_valid_secrets(
    stack: Stack, worker: Service, receiver: Receiver
) -> None:
    """Replaced secrets sign for another day next to the new one; ended ones do not."""
    account = stack.account()
    old, new = make_secret(stack, account), make_secret(stack, account)
    wait_attempted(stack, account, submit(stack, account, receiver.url()))
    [request] = receiver.got()
    assert signed_with(old, request)
    assert signed_with(new, request)
    more = [make_secret(stack, account) for _ in range(4)]
    wait_attempted(stack, account, submit(stack, account, receiver.url("/ok?2")))
    [request] = receiver.got("/ok?2")
    assert not signed_with(old, request)
    assert all(signed_with(secret, request) for secret in (new, *more))


def test_log_shows_every_kind_of_outcome(stack: Stack, worker: Service, receiver: Receiver) -> None:
    """Receivers that fail, hang, redirect, or resolve to a private address."""
    expected = {
        receiver.url("/ok"): (200, None, "delivered"),
        receiver.url("/fail"): (500, None, "pending"),
        receiver.url("/hang"): (None, "timeout", "pending"),
        receiver.url("/redirect"): (302, "redirect", "pending"),
        receiver.url("/ok", "localhost"): (None, "refused_address", "pending"),
        receiver.url("/gone"): (410, None, "failed"),
        receiver.url("/endless"): (200, None, "delivered"),
        receiver.url("/garbage"): (None, "protocol", "pending"),
        f"https://{ADDRESS}:{receiver.port}/": (None, "tls", "pending"),
        "http://no-such-name.invalid/": (None, "dns", "pending"),
    }
    account = stack.account()
    make_secret(stack, account)
    tasks = {url: submit(stack, account, url) for url in expected}
    shown = {}
    for url, task_id in tasks.items():
        delivery = wait_attempted(stack, account, task_id)
        first = delivery["attempts"][0]
        shown[url] = (first["status_code"], first["error"], delivery["status"])
        name = url.replace(str(receiver.port), "PORT")
        print(f"{name:34} {delivery['status']:9} " + json.dumps(first))
    assert expected == shown
    # Neither the redirect nor the refused name led to a request.
    assert [tasks[receiver.url()]] == [
        json.loads(request.body)["data"]["task_id"] for request in receiver.got()
    ]


@pytest.mark.faults
def test_worker_killed_mid_delivery_is_replaced(fragile: Stack, receiver: Receiver) -> None:
    """kill -9 between sending and recording: another worker sends the message again."""
    worker = start_worker(fragile, webhook_timeout_seconds=20)
    account = fragile.account()
    make_secret(fragile, account)
    task_id = submit(fragile, account, receiver.url("/hang"))
    until(lambda: receiver.got("/hang"), timeout=90)
    worker.kill()
    [delivery] = log(fragile, account, task_id)
    assert ("pending", []) == (delivery["status"], delivery["attempts"])
    receiver.release.set()
    start_worker(fragile, webhook_timeout_seconds=20)
    assert 1 == len(receiver.got("/hang"))  # the lease holds
    hurry(fragile.database_url)
    delivery = wait_attempted(fragile, account, task_id)
    assert "delivered" == delivery["status"]
    assert [(2, 200, None)] == attempts(fragile.database_url, task_id)
    ids = [request.headers["webhook-id"] for request in receiver.got("/hang")]
    assert [delivery["id"]] * 2 == ids


@pytest.mark.faults
def test_sigterm_waits_for_a_delivery_in_flight(fragile: Stack, receiver: Receiver) -> None:
    """The worker ends only after the response has been recorded."""
    worker = start_worker(fragile, webhook_timeout_seconds=20)
    account = fragile.account()
    make_secret(fragile, account)
    task_id = submit(fragile, account, receiver.url("/hang"))
    until(lambda: receiver.got("/hang"), timeout=90)
    worker.process.terminate()
    parent = psutil.Process(worker.pid)
    until(lambda: not parent.children(), timeout=30, what="all but the delivery is over")
    assert worker.process.poll() is None
    receiver.release.set()
    assert 0 == worker.process.wait(60)
    [delivery] = log(fragile, account, task_id)
    assert ("delivered", 1) == (delivery["status"], len(receiver.got("/hang")))


def test_cancelled_batch_is_notified(without_worker: Stack, receiver: Receiver) -> None:
    """Every transaction that ends a batch calls `end_batch`, which queues the webhook."""
    account = without_worker.account()
    make_secret(without_worker, account)
    task_id = submit(without_worker, account, receiver.url())
    database = Database(SecretStr(without_worker.database_url), pool_size=1, timeout=20)
    with database.transaction() as session:
        end_batch(
            session,
            uuid.UUID(task_id),
            user_id=uuid.UUID(account.id),
            status="cancelled",
            details={"total": 1},
        )
    database.close()
    start_worker(without_worker)
    wait_attempted(without_worker, account, task_id)
    [request] = receiver.got()
    message = json.loads(request.body)
    assert "batch.cancelled" == message["type"]
    assert ("cancelled", 0, None) == tuple(
        message["data"][name] for name in ("status", "done", "started_at")
    )


def test_redelivery_is_a_new_delivery(stack: Stack, worker: Service, receiver: Receiver) -> None:
    """The old one stays in the log; the event is sent under a new id, ten times an hour."""
    account = stack.account()
    make_secret(stack, account)
    task_id = submit(stack, account, receiver.url("/fail-twice"))
    first = wait_attempted(stack, account, task_id)
    again = f"/api/v1/sentiment/task/{task_id}/deliveries/{first['id']}/redeliver"
    for _ in range(2):
        answer = stack.post(again, account)
        assert (202, "pending", []) == (
            answer.status_code,
            answer.json()["status"],
            answer.json()["attempts"],
        )
    url = stack.database_url

    def all_delivered() -> bool:
        hurry(url)
        return {"delivered"} == {each["status"] for each in log(stack, account, task_id)}

    until(all_delivered, timeout=90, interval=1)
    shown = log(stack, account, task_id)
    assert 3 == len(shown)
    assert sorted((each["id"] for each in shown), reverse=True) == [each["id"] for each in shown]
    assert {each["id"] for each in shown} == {
        request.headers["webhook-id"] for request in receiver.requests
    }
    [data] = {json.dumps(json.loads(request.body)["data"]) for request in receiver.requests}
    assert (1, 1, 0) == tuple(json.loads(data)[name] for name in ("total", "done", "failed"))
    for _ in range(7):
        assert 202 == stack.post(again, account).status_code
    answer = stack.post(again, account)
    assert 429 == answer.status_code
    assert 3400 < int(answer.headers["retry-after"]) <= 3601
    query(url, "UPDATE webhook_deliveries SET created_at = created_at - interval '1 hour'")
    assert 202 == stack.post(again, account).status_code


def test_disabled_workers_send_nothing(without_worker: Stack, receiver: Receiver) -> None:
    """Off is the default; pending deliveries are sent once webhooks are enabled."""
    account = without_worker.account()
    make_secret(without_worker, account)
    start_worker(without_worker, webhooks_enabled=False)
    task_id = submit(without_worker, account, receiver.url())
    without_worker.finish(account, task_id)
    start_worker(without_worker)
    assert "delivered" == wait_attempted(without_worker, account, task_id)["status"]
