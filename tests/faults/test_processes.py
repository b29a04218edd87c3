"""Processes that start too early or wrongly, are told to stop, or are killed in the middle."""

import json
import pickle
import select
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import faulty_model, locks, raw
from support.raw import connect, half_sent
from support.rows import judge_batch, query
from support.servers import FragilePostgres, FragileValkey, Servers
from support.stack import Account, Service, Stack
from support.waiting import until
from valence.local import migrations
from valence_ml import DEFAULT_MODEL

pytestmark = pytest.mark.faults

ANALYZE = "/api/v1/sentiment/analyze"
BATCH = "/api/v1/sentiment/analyze/batch"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers.started(tmp_path_factory.mktemp("servers"), auth={}) as servers:
        yield servers


@pytest.fixture(scope="module")
def account(servers: Servers) -> Account:
    return servers.stack.account()


def status(service: Service, path: str) -> int:
    try:
        return httpx.get(f"{service.internal_url}/{path}", timeout=5).status_code
    except httpx.TransportError:
        return 0


def test_case_036_services_start_before_what_they_need(tmp_path: Path) -> None:
    """Alive and not ready until Postgres and Redis are there, then ready within 10 s."""
    valkey, postgres = FragileValkey(tmp_path / "valkey"), FragilePostgres(tmp_path / "postgres")
    # Once up, so that their addresses and passwords exist.
    with valkey, postgres:
        migrations.upgrade(postgres.url())
        stack = Stack(tmp_path / "stack", postgres.url(), valkey.url())
    names = ("auth", "inference", "batch_worker")
    try:
        services = [stack.start(name, ready=False) for name in names]
        for service in services:
            until(lambda service=service: status(service, "livez") == 200, timeout=30)
        for service in services:
            assert (200, 503) == (status(service, "livez"), status(service, "readyz"))
            assert service.process.poll() is None
        with valkey, postgres:
            for service in services:
                service.wait_ready(timeout=10)
            stack.canary()
            for service in services:
                assert "Traceback" not in service.output()
            stack.close()
    finally:
        stack.close()


def _missing(folder: Path, _: Path) -> None:
    shutil.rmtree(folder)


def _truncated(folder: Path, _: Path) -> None:
    weights = folder / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-1000])


def _changed(folder: Path, _: Path) -> None:
    weights = folder / "weights.npz"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))


def _other_scikit_learn(folder: Path, _: Path) -> None:
    shutil.rmtree(folder)
    faulty_model.write(folder)
    _edit_manifest(folder, lambda manifest: manifest["libraries"].update({"scikit-learn": "99.1"}))


def _false_promise(folder: Path, _: Path) -> None:
    _edit_manifest(folder, lambda manifest: manifest["golden"][0].update(positive=0.123))


class _Touch:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _evil(folder: Path, touched: Path) -> None:
    shutil.rmtree(folder)
    faulty_model.write(folder)
    (folder / "pipeline.joblib").write_bytes(pickle.dumps(_Touch(touched)))


def _edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_case_037_bad_model_stops_the_process_with_one_line(
    servers: Servers, tmp_path: Path
) -> None:
    """Missing, cut short, changed, of another library, breaking its promise, or evil: refused."""
    touched = tmp_path / "touched"
    of_the_worker = (_missing, _truncated, _changed, _evil)
    spoilers = (_missing, _truncated, _changed, _other_scikit_learn, _false_promise, _evil)
    started = []
    for name, spoils in (("inference", spoilers), ("batch_worker", of_the_worker)):
        for spoil in spoils:
            folder = tmp_path / f"{name}{spoil.__name__}"
            shutil.copytree(DEFAULT_MODEL, folder)
            spoil(folder, touched)
            servers.stack.environment |= faulty_model.ENVIRONMENT
            started.append(servers.stack.start(name, ready=False, model_dir=folder))
    for service in started:
        assert service.process.wait(30) == 78, service.output()
        lines = [line for line in service.output().splitlines() if not line.startswith("{")]
        assert 1 == len(lines), service.output()
        assert lines[0].startswith(f"valence {service.name.replace('_', '-')}: ")
    assert not touched.exists()
    # The evil one works on whoever opens it unverified: the control of this test.
    pickle.loads((tmp_path / "inference_evil" / "pipeline.joblib").read_bytes())
    assert touched.exists()


def half_an_analysis(service: Service, account: Account) -> tuple[socket.socket, bytes]:
    """An analyze request in flight; returns its connection and the rest of its body."""
    fields = [f"Authorization: Bearer {account.token}".encode(), b"Content-Type: application/json"]
    body = json.dumps({"text": "I love this product!"}).encode()
    connection, rest = half_sent(service.url, ANALYZE, *fields, body=body)
    until(lambda: in_flight(service), timeout=5)
    return connection, rest


def in_flight(service: Service) -> bool:
    metrics = httpx.get(f"{service.internal_url}/metrics", timeout=10).text
    return "valence_http_requests_in_flight 1.0" in metrics


def refuses(service: Service) -> bool:
    try:
        connect(service.url, timeout=1).close()
    except OSError:
        return True
    return False


def finish(servers: Servers, connection: socket.socket, rest: bytes) -> None:
    """Send the rest of a request, and see that it waits at the table."""
    connection.sendall(rest)
    locks.wait_until_held(servers.postgres.url(), "INSERT")


def answered(connection: socket.socket, timeout: float) -> bool:
    readable, _, _ = select.select([connection], [], [], timeout)
    return bool(readable)


def recorded(servers: Servers, account: Account) -> int:
    statement = "SELECT count(*) FROM predictions WHERE user_id = :id"
    [(count,)] = query(servers.postgres.url(), statement, id=account.id)
    return int(count)


def test_case_038_request_in_flight_is_answered_after_sigterm(servers: Servers) -> None:
    """No new connection is taken, the one that is being served gets its 200, then the end."""
    account = servers.stack.account()
    inference = servers.stack.start("inference", database_timeout_seconds=60)
    connection, rest = half_an_analysis(inference, account)
    with locks.inserts_held(servers.postgres.url(), "predictions"):
        finish(servers, connection, rest)
        inference.process.terminate()
        until(lambda: refuses(inference), timeout=20)
        # The server sees at once that it has one request left, and gives it the time it needs.
        assert not answered(connection, 2)
        assert 200 == status(inference, "livez")
    [answer] = raw.answers(connection)
    assert (200, "positive") == (answer.status, json.loads(answer.body)["sentiment"])
    assert inference.process.wait(20) in {0, -15}
    assert 1 == recorded(servers, account)


def test_case_039_drain_ends_in_time(servers: Servers) -> None:
    """A request that does not end holds the process for the drain and no longer; it gets no 500,
    and as its client may send it again, nothing of it is stored.
    """
    drain, account = 2, servers.stack.account()
    settings = {"drain_seconds": drain, "database_timeout_seconds": 60}
    inference = servers.stack.start("inference", **settings)
    connection, rest = half_an_analysis(inference, account)
    with locks.inserts_held(servers.postgres.url(), "predictions"):
        finish(servers, connection, rest)
        started = time.monotonic()
        inference.process.terminate()
        assert answered(connection, 20)
        assert drain <= time.monotonic() - started < drain + 10
    [answer] = raw.answers(connection)
    assert 503 == answer.status
    assert "retry-after" in answer.headers
    assert inference.process.wait(20) in {0, -15}
    assert "Traceback" not in inference.output()
    assert 0 == recorded(servers, account)


def test_case_039_what_is_being_committed_is_answered(servers: Servers) -> None:
    """The drain ends in the middle of a commit: the client is told that its batch was stored."""
    account, url = servers.stack.account(), servers.postgres.url()
    settings = {"drain_seconds": 1, "database_timeout_seconds": 60}
    inference = servers.stack.start("inference", **settings)
    answers: list[httpx.Response] = []

    def post() -> None:
        body, headers = {"texts": ["good"]}, account.headers
        answers.append(httpx.post(inference.url + BATCH, json=body, headers=headers, timeout=60))

    client = threading.Thread(target=post)
    with locks.inserts_held(url, "batches", at_commit=True):
        client.start()
        locks.wait_until_held(url, "COMMIT")
        inference.process.terminate()
        until(lambda: "Cancel 1 running task(s)" in inference.output(), timeout=20)
    client.join()
    [answer] = answers
    assert 202 == answer.status_code
    stored = "SELECT id::text FROM batches WHERE user_id = :id"
    assert [(answer.json()["task_id"],)] == query(url, stored, id=account.id)
    assert inference.process.wait(20) in {0, -15}


def test_a_second_signal_does_not_wait(servers: Servers) -> None:
    """Whoever is in a hurry interrupts twice; the request that is left is answered all the same."""
    account = servers.stack.account()
    inference = servers.stack.start("inference", drain_seconds=300, database_timeout_seconds=60)
    connection, rest = half_an_analysis(inference, account)
    with locks.inserts_held(servers.postgres.url(), "predictions"):
        finish(servers, connection, rest)
        inference.process.terminate()
        until(lambda: refuses(inference), timeout=20)
        assert not answered(connection, 0.5)
        inference.process.terminate()
        assert answered(connection, 20)
    [answer] = raw.answers(connection)
    assert 503 == answer.status
    assert inference.process.wait(20) in {0, -15}
    assert 0 == recorded(servers, account)


def test_case_041_killed_while_accepting_stores_all_or_nothing(
    servers: Servers, account: Account
) -> None:
    """kill -9 in the middle of the transaction: no chunk without its batch, none missing."""
    texts = [f"text {n}" for n in range(20_000)]
    body = json.dumps({"texts": texts}).encode()
    headers = account.headers | {"Content-Type": "application/json"}
    accepting = (
        "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND query LIKE '%INSERT INTO batch_chunks%'"
        " AND state <> 'idle' AND xact_start IS NOT NULL"
    )
    for _ in range(3):
        inference = servers.stack.start("inference", chunk_texts=20)
        answers: list[int] = []

        def post(url: str = inference.url + BATCH, answers: list[int] = answers) -> None:
            try:
                answer = httpx.post(url, content=body, headers=headers, timeout=30)
                answers.append(answer.status_code)
            except httpx.TransportError:
                answers.append(0)

        client = threading.Thread(target=post)
        client.start()
        until(lambda: query(servers.postgres.url(), accepting), timeout=10, interval=0.002)
        inference.kill()
        client.join()
        assert [0] == answers
    until(lambda: not query(servers.postgres.url(), accepting), timeout=10)
    whole = (
        "SELECT batches.id FROM batches LEFT JOIN batch_chunks ON batch_id = batches.id"
        " GROUP BY batches.id, total HAVING coalesce(sum(size), 0) <> total"
    )
    assert [] == query(servers.postgres.url(), whole)


def accepted_and_killed(servers: Servers, rounds: int) -> None:
    """Each time inference, Redis and Postgres are killed the moment 202 arrives; all completes."""
    texts = [f"text {n}" for n in range(2000)]
    accepted = []
    inference = servers.stack.start("inference", ready=False)
    for account in [servers.stack.account() for _ in range(rounds)]:
        inference.wait_ready()
        accepted.append((account, servers.stack.submit(account, texts)))
        inference.kill()
        servers.postgres.kill()
        servers.valkey.kill()
        inference = servers.stack.start("inference", ready=False)
        servers.postgres.start()
        servers.valkey.start()
    worker = servers.stack.start("batch_worker", ready=False, concurrency=1)
    for service in (inference, worker):
        service.wait_ready()
    for account, task_id in accepted:
        servers.stack.finish(account, task_id, timeout=120)
        judge_batch(servers.postgres.url(), task_id, texts)
    for service in (inference, worker):
        service.kill()


def test_case_103_what_was_accepted_survives_the_death_of_all(servers: Servers) -> None:
    """Three times."""
    accepted_and_killed(servers, 3)


@pytest.mark.slow_faults
def test_case_103_what_was_accepted_survives_fifty_deaths(servers: Servers) -> None:
    """The long form."""
    accepted_and_killed(servers, 50)
