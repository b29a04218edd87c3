"""Who asks for little is not made to wait for who asks for much: real workers, real queues."""

import time
from pathlib import Path

import pytest

from support.jobs import CHUNK_TEXTS, Jobs
from support.rows import query
from support.servers import Servers

BUDGET_SECONDS = 5
"""Of issue 6, for a batch of ten beside ten of a hundred thousand."""

_SCORED_MEANWHILE = """
    SELECT count(*) FROM predictions, batches AS little
    WHERE little.id = :little AND predictions.user_id <> little.user_id
        AND predictions.created_at BETWEEN little.created_at AND little.finished_at
"""


def test_small_batch_waits_for_two_chunks_of_a_large_queue(jobs: Jobs) -> None:
    """A has 120 chunks before B's one: at most what was under way and one more go before it."""
    jobs.start_worker()
    greedy = jobs.servers.stack.account()
    texts = [f"text {n}" for n in range(400)]
    large = [jobs.servers.stack.submit(greedy, texts) for _ in range(3)]
    jobs.wait_midway(large[0], len(texts))
    modest, little, few = jobs.submit(CHUNK_TEXTS)
    jobs.judge(modest, little, few)
    url = jobs.servers.postgres.url()
    [(meanwhile,)] = query(url, _SCORED_MEANWHILE, little=little)
    assert meanwhile <= 3 * CHUNK_TEXTS
    assert jobs.done(large[-1]) == 0


@pytest.mark.slow_faults
def test_small_batch_is_done_soon_beside_ten_of_a_hundred_thousand(tmp_path: Path) -> None:
    """The long form, with the product's own model and settings and one scoring process."""
    with Servers.started(
        tmp_path, auth={}, inference={}, batch_worker={"concurrency": 1}
    ) as servers:
        greedy, modest = servers.stack.account(), servers.stack.account()
        texts = [f"text {n} is {'good' if n % 2 else 'bad'}" for n in range(100_000)]
        large = [servers.stack.submit(greedy, texts) for _ in range(10)]
        seconds = []
        for _ in range(3):
            started = time.monotonic()
            little = servers.stack.submit(modest, texts[:10])
            servers.stack.finish(modest, little)
            seconds.append(round(time.monotonic() - started, 2))
        statuses = [servers.stack.task(greedy, task_id)["status"] for task_id in large]
        print(f"seconds for 10 texts beside {statuses.count('pending')} of 100,000: {seconds}")
        assert "pending" in statuses
        assert max(seconds) <= BUDGET_SECONDS
        for task_id in large:
            task = servers.stack.finish(greedy, task_id, timeout=300)
            assert ("completed", len(texts)) == (task["status"], task["done"])
