"""Memory: a worker that has done many batches holds no more than one that has done a few."""

from collections.abc import Iterator

import psutil
import pytest

from support.servers import Servers
from support.stack import Service

MEBIBYTE = 1024 * 1024
WARM_UP = 20
GROWTH = 6 * MEBIBYTE
"""What the allocator may have come to need meanwhile; a leak of one batch's texts is far more."""


@pytest.fixture
def worker(servers: Servers) -> Iterator[Service]:
    """The product's own model and settings."""
    worker = servers.stack.start("batch_worker", concurrency=1)
    yield worker
    worker.kill()


def resident(worker: Service) -> tuple[int, ...]:
    """Of the parent and of its one child."""
    parent = psutil.Process(worker.pid)
    return tuple(process.memory_info().rss for process in (parent, *parent.children()))


@pytest.mark.parametrize(
    "texts", [20, pytest.param(10_000, marks=pytest.mark.slow_faults)], ids=["small", "large"]
)
def test_memory_is_flat_over_a_hundred_batches(
    servers: Servers, worker: Service, texts: int
) -> None:
    """Of the child that scores and of the parent that sweeps, renders metrics and judges."""
    account = servers.stack.account()
    batch = [f"text {n} is {'good' if n % 2 else 'bad'}" for n in range(texts)]

    def work(batches: int) -> tuple[int, ...]:
        for _ in range(batches):
            servers.stack.finish(account, servers.stack.submit(account, batch))
        return resident(worker)

    children = psutil.Process(worker.pid).children()
    before = work(WARM_UP)
    after = work(100)
    print([f"{size / MEBIBYTE:.1f}" for size in (*before, *after)], "MiB before and after")
    assert children == psutil.Process(worker.pid).children()
    assert [] == [(b, a) for b, a in zip(before, after, strict=True) if a - b > GROWTH]
