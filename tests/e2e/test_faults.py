"""Pods killed in the middle of batches: every accepted batch completes, each result once."""

import time
from collections.abc import Callable

import pytest

from support.cluster import User, kubectl, names, ready, sql, until

BATCH = 20_000


def submitted(user: User, batches: int = 3) -> list[str]:
    """Submit batches of numbered texts; return their ids."""
    texts = [f"{'good' if i % 3 else 'terrible'} thing number {i}" for i in range(BATCH)]
    return [user.submit(texts) for _ in range(batches)]


def is_in_progress(user: User, task: str) -> bool:
    return 0 < user.task(task)["done"] < BATCH


def assert_each_result_once(user: User, tasks: list[str]) -> None:
    """In the database: all positions, none twice, and as many rows of history."""
    for task in tasks:
        state = user.finished(task, timeout=240)
        assert (state["status"], state["done"]) == ("completed", BATCH)
    query = "SELECT count(*), count(DISTINCT position) FROM batch_results WHERE batch_id = '{}'"
    for task in tasks:
        assert sql(query.format(task)) == f"{BATCH}|{BATCH}"
    history = sql(
        "SELECT count(*) FROM predictions JOIN users ON users.id = user_id"
        f" WHERE username = '{user.username}'"
    )
    assert history == str(BATCH * len(tasks))


def kill(component: str) -> None:
    """Delete all pods of a component at once, without a grace period."""
    kubectl("delete", "pod", *names(component), "--force", "--grace-period=0")


def survived(user: User, fault: Callable[[], None], what: str) -> None:
    started = time.monotonic()
    tasks = submitted(user)
    is_working = lambda: any(is_in_progress(user, task) for task in tasks)  # noqa: E731
    until(is_working, timeout=60, what="a batch is in progress", interval=0.1)
    fault()
    assert_each_result_once(user, tasks)
    seconds = time.monotonic() - started
    print(f"\n{what}: {len(tasks)} batches of {BATCH} complete, each once, {seconds:.0f} s in all")


@pytest.mark.e2e
def test_killed_workers(user: User) -> None:
    survived(user, lambda: kill("batch-worker"), "workers killed")


@pytest.mark.e2e_full
def test_deleted_redis(user: User) -> None:
    survived(user, lambda: kill("valkey"), "Redis pod deleted")
    until(lambda: ready("valkey") == 1, timeout=60, what="Redis is back")


@pytest.mark.e2e_full
def test_restarted_postgres(user: User) -> None:
    def restart() -> None:
        kubectl("delete", "pod", "valence-postgres-0", "--wait=true")
        until(lambda: ready("postgres") == 1, timeout=120, what="Postgres is back")

    survived(user, restart, "Postgres restarted")
