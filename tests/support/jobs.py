"""Batches through real workers whose model takes its time, so that a blow lands in the middle.

Nobody sleeps for luck: results are counted until there are some and not all, then it is struck.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from support.rows import done, judge_batch
from support.stack import Account, Service, Stack
from support.waiting import until

CHUNK_TEXTS = 10
SECONDS_A_CHUNK = 0.08


@dataclass
class Jobs:
    """Workers with the faulty model, and one batch at a time."""

    stack: Stack
    model: Path
    web_settings: ClassVar = {"chunk_texts": CHUNK_TEXTS, "inline_results": 10_000}

    def start_worker(self, *, ready: bool = True, concurrency: int = 1, **more: Any) -> Service:
        settings = {
            "model_dir": self.model,
            "concurrency": concurrency,
            "lease_seconds": 2,
            "sweep_seconds": 0.5,
            "soft_shutdown_seconds": 3,
            **more,
        }
        return self.stack.start("batch_worker", ready=ready, **settings)

    def start_workers(self, count: int, **settings: Any) -> list[Service]:
        """Several at once: they start side by side."""
        workers = [self.start_worker(ready=False, **settings) for _ in range(count)]
        return [worker.wait_ready() for worker in workers]

    def submit(self, total: int, **odd: str) -> tuple[Account, str, list[str]]:
        """A new user's batch; `odd` maps `at_N` to a text that goes to place N."""
        texts = [f"text {n} is {'good' if n % 2 else 'bad'}" for n in range(total)]
        for place, text in odd.items():
            texts[int(place.removeprefix("at_"))] = text
        account = self.stack.account()
        return account, self.stack.submit(account, texts), texts

    def done(self, task_id: str) -> int:
        return done(self.stack.database_url, task_id)

    def wait_midway(self, task_id: str, total: int) -> int:
        """Until some results are stored; not all may be."""
        count = until(lambda: self.done(task_id), timeout=30, interval=0.02, what="a first result")
        assert count < total, "the batch ended before it could be struck"
        return count

    def judge(self, account: Account, task_id: str, texts: list[str], **expected: Any) -> None:
        """Wait for the end, then judge it."""
        task = self.stack.finish(account, task_id, timeout=60)
        assert len(texts) == task["done"]
        judge_batch(self.stack.database_url, task_id, texts, **expected)
