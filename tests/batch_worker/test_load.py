"""Real workers under load: fairness between users, and memory that does not grow."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.jobs import CHUNK_TEXTS, Jobs
from support.rows import query
from support.servers import Servers
from support.stack import Service

MAX_SECONDS = 5
"""For a batch of ten texts next to ten batches of a hundred thousand."""

MEBIBYTE = 1024 * 1024
WARM_UP = 20
MAX_GROWTH = 6 * MEBIBYTE
"""Growth of the allocator's heap; a leak of one batch's texts is far more."""

_COUNT_SCORED_MEANWHILE = """
    SELECT count(*) FROM predictions, batches AS small
    WHERE small.id = :small AND predictions.user_id <> small.user_id
        AND predictions.created_at BETWEEN small.created_at AND small.finished_at
"""


def test_small_batch_waits_for_two_chunks_of_a_large_queue(jobs: Jobs) -> None:
    """A has 120 chunks before B's one: at most the chunk in progress and one more go first."""
    jobs.start_worker()
    greedy = jobs.stack.account()
    texts = [f"text {n}" for n in range(400)]
    large = [jobs.stack.submit(greedy, texts) for _ in range(3)]
    jobs.wait_midway(large[0], len(texts))
    modest, small, few = jobs.submit(CHUNK_TEXTS)
    jobs.judge(modest, small, few)
    url = jobs.stack.database_url
    [(meanwhile,)] = query(url, _COUNT_SCORED_MEANWHILE, small=small)
    assert meanwhile <= 3 * CHUNK_TEXTS
    assert jobs.done(large[-1]) == 0


@pytest.mark.slow_faults
def test_small_batch_is_done_soon_next_to_ten_of_a_hundred_thousand(tmp_path: Path) -> None:
    """The long form, with the default model and settings and one scoring process."""
    with Servers.started(
        tmp_path, auth={}, inference={}, batch_worker={"concurrency": 1}
    ) as servers:
        greedy, modest = servers.stack.account(), servers.stack.account()
        texts = [f"text {n} is {'good' if n % 2 else 'bad'}" for n in range(100_000)]
        large = [servers.stack.submit(greedy, texts) for _ in range(10)]
        seconds = []
        for _ in range(3):
            started = time.monotonic()
            small = servers.stack.submit(modest, texts[:10])
            servers.stack.finish(modest, small)
            seconds.append(round(time.monotonic() - started, 2))
        statuses = [servers.stack.task(greedy, task_id)["status"] for task_id in large]
        print(f"seconds for 10 texts next to {statuses.count('pending')} of 100,000: {seconds}")
        assert "pending" in statuses
        assert max(seconds) <= MAX_SECONDS
        for task_id in large:
            task = servers.stack.finish(greedy, task_id, timeout=300)
            assert ("completed", len(texts)) == (task["status"], task["done"])


@pytest.fixture
def worker(servers: Servers) -> Iterator[Service]:
    """The default model and settings."""
    worker = servers.stack.start("batch_worker", concurrency=1)
    yield worker
    worker.kill()


def resident_bytes(worker: Service) -> tuple[int, ...]:
    """The resident memory of the parent and of its one child, in bytes."""
    parent = psutil.Process(worker.pid)
    return tuple(process.memory_info().rss for process in (parent, *parent.children()))


@pytest.mark.faults
@pytest.mark.parametrize(
    "texts", [20, pytest.param(10_000, marks=pytest.mark.slow_faults)], ids=["small", "large"]
)
def test_memory_is_flat_over_a_hundred_batches(
    servers: Servers, worker: Service, texts: int
) -> None:
    """In the child that scores and in the parent with its background threads."""
    account = servers.stack.account()
    batch = [f"text {n} is {'good' if n % 2 else 'bad'}" for n in range(texts)]

    def work(batches: int) -> tuple[int, ...]:
        for _ in range(batches):
            servers.stack.finish(account, servers.stack.submit(account, batch))
        return resident_bytes(worker)

    children = psutil.Process(worker.pid).children()
    before = work(WARM_UP)
    after = work(100)
    print([f"{size / MEBIBYTE:.1f}" for size in (*before, *after)], "MiB before and after")
    assert children == psutil.Process(worker.pid).children()
    assert [] == [(b, a) for b, a in zip(before, after, strict=True) if a - b > MAX_GROWTH]
