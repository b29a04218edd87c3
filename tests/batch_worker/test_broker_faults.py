"""Duplicate messages, leases that expire together, and outages of Redis: the same results."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from support import faulty_model
from support.jobs import CHUNK_TEXTS, Jobs
from support.rows import query
from support.servers import Servers
from support.waiting import until
from valence_batch_worker.batches.sweeper import MAX_RINGS
from valence_common.celery_app import QUEUE

pytestmark = pytest.mark.faults

CHUNK_SECONDS = 14
"""Longer than ten seconds, the interval at which kombu restores unacknowledged messages."""

CHUNKS_PER_BATCH = 500

RECOVERY_SECONDS = 30
"""A batch completes within this time once Redis is back (case 27)."""


def test_case_108_message_that_comes_again_mid_chunk_changes_nothing(
    jobs: Jobs, tmp_path: Path
) -> None:
    """Two workers get the message for one long chunk; one of them finds nothing to claim."""
    slow = faulty_model.write(tmp_path / "slow-1", seconds=CHUNK_SECONDS)
    workers = jobs.start_workers(
        2,
        module="support.short_visibility_worker",
        model_dir=slow,
        lease_seconds=60,
        sweep_seconds=600,  # the sweeper does not ring
        log_level="DEBUG",
    )
    account, task_id, texts = jobs.submit(CHUNK_TEXTS)
    jobs.judge(account, task_id, texts)
    until(lambda: sum(w.output().count('"event": "task"') for w in workers) >= 2, timeout=30)
    attempts = "SELECT attempt FROM batch_chunks WHERE batch_id = :id"
    assert [(1,)] == query(jobs.stack.database_url, attempts, id=task_id)


_COUNT_RECOVERIES = """
CREATE TABLE recoveries (chunk_id uuid NOT NULL);
CREATE FUNCTION count_recovery() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO recoveries VALUES (NEW.id);
    RETURN NEW;
END $$;
CREATE TRIGGER count_recovery AFTER UPDATE ON batch_chunks FOR EACH ROW
WHEN (OLD.state = 'running' AND NEW.state = 'pending') EXECUTE FUNCTION count_recovery()
"""
_DROP_RECOVERIES = "DROP FUNCTION count_recovery CASCADE; DROP TABLE recoveries"

_EXPIRE_ALL = """
UPDATE batch_chunks SET state = 'running', attempt = 1, lease_until = now() - interval '1 s'
WHERE state = 'pending'
"""


@pytest.fixture
def recoveries(servers: Servers) -> Iterator[None]:
    """A trigger that records each requeued chunk."""
    query(servers.postgres.url(), _COUNT_RECOVERIES)
    yield
    query(servers.postgres.url(), _DROP_RECOVERIES)


@pytest.mark.usefixtures("recoveries")
@pytest.mark.parametrize("leases", [500, pytest.param(10_000, marks=pytest.mark.slow_faults)])
def test_case_111_three_sweepers_recover_each_expired_lease_once(
    jobs: Jobs, tmp_path: Path, leases: int
) -> None:
    """Two are killed meanwhile: no deadlock, no error, and few messages in the queue."""
    url = jobs.stack.database_url
    settings = {
        "model_dir": faulty_model.write(tmp_path / "quick-1"),
        "sweep_seconds": 0.2,
        "lease_seconds": 60,
    }
    workers = jobs.start_workers(3, **settings)
    for worker in workers:
        parent = psutil.Process(worker.pid)
        for process in (*parent.children(), parent):
            process.suspend()
    batches = [
        jobs.submit(CHUNKS_PER_BATCH * CHUNK_TEXTS) for _ in range(leases // CHUNKS_PER_BATCH)
    ]
    jobs.stack.flush()
    query(url, _EXPIRE_ALL)
    running = "SELECT count(*) FROM batch_chunks WHERE state = 'running'"
    for worker in workers:
        psutil.Process(worker.pid).resume()  # the sweepers only, not the children
    until(lambda: query(url, running)[0][0] < leases, timeout=60, interval=0.01)
    for worker in workers[1:]:
        worker.kill()
    until(lambda: query(url, running) == [(0,)], timeout=120)
    with jobs.stack.redis() as client:
        assert client.llen(QUEUE) <= 3 * MAX_RINGS
    assert [] == [worker.pid for worker in workers if "sweep_failed" in worker.output()]
    for child in psutil.Process(workers[0].pid).children():
        child.resume()
    for account, task_id, texts in batches:
        jobs.stack.finish(account, task_id, timeout=leases)
        jobs.judge(account, task_id, texts)
    twice = "SELECT count(*), count(DISTINCT chunk_id) FROM recoveries"
    assert [(leases, leases)] == query(url, twice)
    assert [(0,)] == query(url, "SELECT sum(deadlocks)::int FROM pg_stat_database")


@pytest.mark.slow_faults
def test_case_027_worker_survives_ten_outages_of_redis(servers: Servers, model: Path) -> None:
    """Redis is killed and down for up to a minute; the worker recovers without a restart."""
    jobs = Jobs(servers.stack, model)
    worker = jobs.start_worker()
    choice = random.Random(27)
    outages = [*sorted(choice.sample(range(1, 60), 9)), 60]
    seconds = []
    for outage in outages:
        with servers.valkey.down():
            time.sleep(outage)
            assert 200 == httpx.get(f"{worker.internal_url}/livez").status_code
        account, task_id, texts = jobs.submit(10)
        restored = time.monotonic()
        servers.stack.finish(account, task_id, timeout=RECOVERY_SECONDS)
        seconds.append(round(time.monotonic() - restored, 1))
        with servers.valkey.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        jobs.judge(account, task_id, texts)
        jobs.judge(*jobs.submit(10))
    print(f"outages of {outages} s, then done after {seconds} s")
    assert worker.process.poll() is None
    assert 200 == httpx.get(f"{worker.internal_url}/livez").status_code
    worker.kill()
