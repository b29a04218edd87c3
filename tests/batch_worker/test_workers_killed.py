"""Real workers that end in the middle of a batch: others finish it, each result exactly once."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from support import faulty_model
from support.jobs import Jobs
from support.rows import query
from support.servers import Servers
from support.waiting import until
from valence_common.celery_app import Doorbell

pytestmark = pytest.mark.faults

GRACE_SECONDS = 20
"""The grace period of case 42; an unloaded machine needs a tenth of it."""

TERMINATION_GRACE_SECONDS = 60
"""The chart's `terminationGracePeriodSeconds`; an unloaded machine needs a third of it."""


def test_case_103_batch_of_a_killed_web_process_waits_for_a_worker(jobs: Jobs) -> None:
    """202 means durable: no worker, inference killed right after it, the message lost."""
    account, task_id, texts = jobs.submit(25)
    jobs.stack.running("inference")[0].kill()
    jobs.stack.flush()
    jobs.stack.start("inference", ready=False, **jobs.web_settings)
    jobs.start_worker()
    jobs.stack.running("inference")[0].wait_ready()
    jobs.judge(account, task_id, texts)


def test_workers_killed_mid_batch_are_replaced(jobs: Jobs) -> None:
    """kill -9 of one worker with its children, and of only the parent of another."""
    worker, headless = jobs.start_workers(2)
    children = psutil.Process(headless.pid).children(recursive=True)
    account, task_id, texts = jobs.submit(400)
    jobs.wait_midway(task_id, 400)
    worker.kill()
    os.kill(headless.pid, signal.SIGKILL)
    headless.process.wait(10)
    assert [] == psutil.wait_procs(children, timeout=10)[1]  # no orphan continues
    assert jobs.done(task_id) < 400
    jobs.start_worker()
    jobs.judge(account, task_id, texts)


def test_case_042_sigterm_mid_batch_hands_over_the_rest(jobs: Jobs) -> None:
    """Both children end their time slices and the worker exits in time; the next one finishes.

    No chunk is attempted twice.
    """
    worker = jobs.start_worker(concurrency=2, soft_shutdown_seconds=4)
    account, task_id, texts = jobs.submit(800)
    jobs.wait_midway(task_id, 800)
    assert 0 == worker.stop(timeout=GRACE_SECONDS)
    assert jobs.done(task_id) < 800
    jobs.start_worker(concurrency=2)
    jobs.judge(account, task_id, texts)
    attempts = "SELECT max(attempt) FROM batch_chunks WHERE batch_id = :id"
    assert [(1,)] == query(jobs.stack.database_url, attempts, id=task_id)


def test_case_042_sigterm_requeues_a_chunk_that_takes_too_long(jobs: Jobs, tmp_path: Path) -> None:
    """A long chunk delays neither the shutdown nor the next worker, and the attempt does not count.

    So the chunk survives as many rollouts as it has attempts.
    """
    url, long_lease = jobs.stack.database_url, {"lease_seconds": 30, "max_attempts": 2}
    slow = faulty_model.write(tmp_path / "slow-1", seconds=60)
    state = "SELECT state, attempt FROM batch_chunks WHERE batch_id = :id"
    account, task_id, texts = jobs.submit(10)
    for _ in range(2):
        worker = jobs.start_worker(model_dir=slow, soft_shutdown_seconds=1, **long_lease)
        until(lambda: query(url, state, id=task_id) == [("running", 1)], timeout=20)
        worker.stop(timeout=GRACE_SECONDS)
        assert [("pending", 0)] == query(url, state, id=task_id)
        assert '"event": "chunk_given_back"' in worker.output()
    jobs.start_worker(**long_lease)
    until(lambda: query(url, state, id=task_id) == [("done", 1)], timeout=20)
    jobs.judge(account, task_id, texts)


@pytest.mark.slow_faults
def test_sigterm_ends_a_worker_while_redis_is_frozen(servers: Servers, jobs: Jobs) -> None:
    """Every read from Redis has a timeout, so Kubernetes need not kill the worker."""
    worker = jobs.start_worker()
    account, task_id, texts = jobs.submit(300)
    jobs.wait_midway(task_id, 300)
    with servers.valkey.frozen():
        assert 0 == worker.stop(timeout=TERMINATION_GRACE_SECONDS)
    jobs.start_worker()
    jobs.judge(account, task_id, texts)


def test_case_116_concurrent_workers_share_the_work(jobs: Jobs) -> None:
    """Two workers of two processes, three users' batches, forty extra messages.

    Each chunk is attempted once; progress never falls and equals the stored results; idle workers
    end at once on SIGTERM.
    """
    workers = jobs.start_workers(2, concurrency=2, lease_seconds=30)
    others = [jobs.submit(100) for _ in range(2)]
    account, task_id, texts = jobs.submit(600)
    assert Doorbell(SecretStr(jobs.stack.redis_url), timeout=1).ring(40)
    seen = []
    while not seen or seen[-1]["status"] in {"pending", "processing"}:
        before = jobs.done(task_id)
        seen.append(jobs.stack.task(account, task_id))
        assert before <= seen[-1]["done"] <= jobs.done(task_id)
        assert seen[-1]["progress"] == pytest.approx(seen[-1]["done"] / 600)
        assert (seen[-1]["status"] == "completed") == (seen[-1]["done"] == 600)
        time.sleep(0.05)
    counts = [task["done"] for task in seen]
    assert sorted(counts) == counts
    assert len(set(counts)) > 2
    jobs.judge(account, task_id, texts)
    for batch in others:
        jobs.judge(*batch)
    chunks = "SELECT max(attempt) FROM batch_chunks WHERE batch_id = :id"
    assert [(1,)] == query(jobs.stack.database_url, chunks, id=task_id)

    for worker in workers:
        worker.process.terminate()
    assert [0, 0] == [worker.process.wait(GRACE_SECONDS) for worker in workers]
    lines = workers[0].output().splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    assert ("batch-worker", "working") in {(line["service"], line["event"]) for line in logged}
