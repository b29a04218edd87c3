"""Messages that come again, and leases that run out together: more work, the same effect."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support import faulty_model
from support.jobs import CHUNK_TEXTS, Jobs
from support.rows import query
from support.servers import Servers
from support.waiting import until
from valence_batch_worker.batches.sweeper import MAX_RINGS
from valence_common.celery_app import QUEUE

LONGER_THAN_KOMBU_LOOKS = 14
"""Seconds: every ten it looks for messages that nobody has acknowledged."""

A_BATCH = 500
"""Chunks."""


def test_case_108_message_that_comes_again_mid_chunk_changes_nothing(
    jobs: Jobs, tmp_path: Path
) -> None:
    """One ring for one long chunk is heard by two workers; one of them finds nothing to do."""
    slow = faulty_model.write(tmp_path / "slow-1", seconds=LONGER_THAN_KOMBU_LOOKS)
    workers = jobs.start_workers(
        2,
        module="support.short_visibility_worker",
        model_dir=slow,
        lease_seconds=60,
        sweep_seconds=600,  # nobody else rings
        log_level="DEBUG",
    )
    account, task_id, texts = jobs.submit(CHUNK_TEXTS)
    jobs.judge(account, task_id, texts)
    until(lambda: sum(w.output().count('"event": "task"') for w in workers) >= 2, timeout=30)
    attempts = "SELECT attempt FROM batch_chunks WHERE batch_id = :id"
    assert [(1,)] == query(jobs.servers.postgres.url(), attempts, id=task_id)


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
_FORGET_RECOVERIES = "DROP FUNCTION count_recovery CASCADE; DROP TABLE recoveries"

_EXPIRE_ALL = """
UPDATE batch_chunks SET state = 'running', attempt = 1, lease_until = now() - interval '1 s'
WHERE state = 'pending'
"""


@pytest.fixture
def recoveries(servers: Servers) -> Iterator[None]:
    """Each chunk that is taken back is written down."""
    query(servers.postgres.url(), _COUNT_RECOVERIES)
    yield
    query(servers.postgres.url(), _FORGET_RECOVERIES)


@pytest.mark.usefixtures("recoveries")
@pytest.mark.parametrize("leases", [500, pytest.param(10_000, marks=pytest.mark.slow_faults)])
def test_case_111_three_sweepers_recover_each_expired_lease_once(
    jobs: Jobs, tmp_path: Path, leases: int
) -> None:
    """Two are killed meanwhile: no deadlock, no error, and few rings in the queue."""
    url = jobs.servers.postgres.url()
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
    batches = [jobs.submit(A_BATCH * CHUNK_TEXTS) for _ in range(leases // A_BATCH)]
    jobs.servers.valkey.flush()
    query(url, _EXPIRE_ALL)
    left = "SELECT count(*) FROM batch_chunks WHERE state = 'running'"
    for worker in workers:
        psutil.Process(worker.pid).resume()  # only sweepers work
    until(lambda: query(url, left)[0][0] < leases, timeout=60, interval=0.01)
    for worker in workers[1:]:
        worker.kill()
    until(lambda: query(url, left) == [(0,)], timeout=120)
    with jobs.servers.valkey.client() as client:
        assert client.llen(QUEUE) <= 3 * MAX_RINGS
    assert [] == [worker.pid for worker in workers if "sweep_failed" in worker.output()]
    for child in psutil.Process(workers[0].pid).children():
        child.resume()
    for account, task_id, texts in batches:
        jobs.servers.stack.finish(account, task_id, timeout=leases)
        jobs.judge(account, task_id, texts)
    twice = "SELECT count(*), count(DISTINCT chunk_id) FROM recoveries"
    assert [(leases, leases)] == query(url, twice)
    assert [(0,)] == query(url, "SELECT sum(deadlocks)::int FROM pg_stat_database")
