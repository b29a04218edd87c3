"""Faults while one worker runs: it continues, and every batch completes exactly once."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from support import faulty_model
from support.jobs import Jobs
from support.rows import query
from support.servers import Servers
from support.stack import Service
from support.waiting import until
from valence_common.celery_app import QUEUE

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def jobs(servers: Servers, model: Path) -> Jobs:
    return Jobs(servers.stack, model)


@pytest.fixture(scope="module", autouse=True)
def started(jobs: Jobs) -> Service:
    """The one worker of all tests here, with short leases and early bisection."""
    return jobs.start_worker(lease_seconds=0.8, sweep_seconds=0.3, max_attempts=2)


@pytest.fixture
def worker(started: Service) -> Iterator[Service]:
    """The worker, which must survive each test."""
    yield started
    assert started.process.poll() is None


def test_internal_port_serves_probes_and_metrics(jobs: Jobs, worker: Service) -> None:
    """The metrics include those of the child processes."""
    account, task_id, texts = jobs.submit(40)
    jobs.judge(account, task_id, texts)
    for path in ("livez", "readyz"):
        assert 200 == httpx.get(f"{worker.internal_url}/{path}").status_code
    metrics = httpx.get(f"{worker.internal_url}/metrics").text.splitlines()
    for line in (
        'valence_batch_chunks_total{outcome="done"} 4.0',
        'valence_batch_attempts_total{number="1"} 4.0',
        "valence_batch_texts_total 40.0",
        "valence_batch_chunk_duration_seconds_count 4.0",
        'valence_batches_ended_total{status="completed"} 1.0',
        'valence_dependency_up{dependency="postgres"} 1.0',
        'valence_dependency_up{dependency="redis"} 1.0',
    ):
        assert line in metrics
    names = {line.partition(" ")[0] for line in metrics}
    for kind in ("waiting", "running"):
        assert f"valence_batch_chunks_{kind}" in names
    assert {"valence_batch_oldest_chunk_seconds", "process_resident_memory_bytes"} <= names


def test_worker_without_messages_still_finds_work(jobs: Jobs, worker: Service) -> None:
    """The sweeper rings for waiting chunks, a limited number of times while no child answers."""
    for child in psutil.Process(worker.pid).children():
        child.suspend()
    account, task_id, texts = jobs.submit(300)
    jobs.stack.flush()

    def queued() -> int:
        with jobs.stack.redis() as client:
            return client.llen(QUEUE)

    until(lambda: queued() > 0, timeout=10)
    time.sleep(1.5)  # three more sweeps
    assert queued() <= 16
    for child in psutil.Process(worker.pid).children():
        child.resume()
    jobs.judge(account, task_id, texts)


def test_case_105_flushall_mid_batch_loses_nothing(
    servers: Servers, jobs: Jobs, worker: Service
) -> None:
    """FLUSHALL five times while a batch runs: no text is lost, progress never falls."""
    account, task_id, texts = jobs.submit(400)
    progress = [0]

    def grows() -> bool:
        progress.append(servers.stack.task(account, task_id)["done"])
        return progress[-1] > progress[-2]

    for _ in range(5):
        until(grows, timeout=30, what="progress after FLUSHALL")
        assert progress[-1] < len(texts), "the batch ended before it could be struck"
        servers.valkey.flush()
    until(lambda: grows() and progress[-1] == len(texts), timeout=60)
    assert sorted(progress) == progress
    jobs.judge(account, task_id, texts)


def test_case_106_redis_killed_and_emptied_loses_nothing(
    servers: Servers, jobs: Jobs, worker: Service
) -> None:
    """Redis dies without persistence and comes back empty: the same worker finishes."""
    account, task_id, texts = jobs.submit(300)
    jobs.wait_midway(task_id, 300)
    with servers.valkey.down():
        second = jobs.submit(20)
    jobs.judge(account, task_id, texts)
    jobs.judge(*second)


def test_batch_survives_ended_database_sessions(
    servers: Servers, jobs: Jobs, worker: Service
) -> None:
    """Every session is terminated again and again while a batch runs: nothing doubles."""
    account, task_id, texts = jobs.submit(150)
    jobs.wait_midway(task_id, 150)
    for _ in range(4):
        servers.postgres.terminate_sessions()
        time.sleep(0.2)
    jobs.judge(account, task_id, texts)


def test_child_killed_mid_batch_is_replaced_by_its_own_worker(jobs: Jobs, worker: Service) -> None:
    """kill -9 of the scoring process alone (out of memory, say) needs no other worker."""
    account, task_id, texts = jobs.submit(200)
    for _ in range(2):
        jobs.wait_midway(task_id, 200)
        for child in psutil.Process(worker.pid).children():
            child.kill()
    jobs.judge(account, task_id, texts)


def test_text_that_makes_the_model_raise_fails_alone(jobs: Jobs, worker: Service) -> None:
    """A model's error fails the text, not the batch; neither text nor traceback is logged."""
    account, task_id, texts = jobs.submit(20, at_19=faulty_model.RAISES)
    jobs.judge(account, task_id, texts, failed=[19])
    assert faulty_model.RAISES not in worker.output()
    assert "Traceback (most recent call last)" not in worker.output()


def test_text_that_kills_the_process_fails_alone(jobs: Jobs, worker: Service) -> None:
    """The attempt counts before the process dies, so bisection finds the text."""
    account, task_id, texts = jobs.submit(1, at_0=faulty_model.KILLS)
    other = jobs.submit(20)
    jobs.judge(account, task_id, texts, failed=[0], status="failed")
    jobs.judge(*other)


def test_text_that_hangs_the_process_fails_alone(jobs: Jobs, worker: Service) -> None:
    """A model that never returns fails its text, not the worker."""
    account, task_id, texts = jobs.submit(1, at_0=faulty_model.HANGS)
    other = jobs.submit(20)
    jobs.judge(account, task_id, texts, failed=[0], status="failed")
    jobs.judge(*other)


def test_row_that_postgres_rejects_is_not_logged(jobs: Jobs, worker: Service) -> None:
    """The error of Postgres quotes the row, the log must not; the lease recovers the chunk."""
    private, url = "quite a private text", jobs.stack.database_url
    check = f"ADD CONSTRAINT private CHECK (text <> '{private}') NOT VALID"
    query(url, f"ALTER TABLE predictions {check}")
    account, task_id, texts = jobs.submit(20, at_3=private)
    until(lambda: "task_failed" in worker.output(), timeout=30)
    query(url, "ALTER TABLE predictions DROP CONSTRAINT private")
    jobs.judge(account, task_id, texts)
    failed = [json.loads(line) for line in worker.output().splitlines() if "task_failed" in line]
    assert {"IntegrityError"} == {event["error"] for event in failed}
    assert [] == [word for word in (private, "Failing row") if word in worker.output()]
