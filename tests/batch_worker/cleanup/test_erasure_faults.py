"""Real workers: an account is erased in the middle of its batch; a worker is killed meanwhile."""

import pytest

from support.jobs import Jobs
from support.owned_rows import count_rows
from support.rows import query
from support.stack import PASSWORD, Account
from support.waiting import until

pytestmark = pytest.mark.faults


def erase(jobs: Jobs, account: Account) -> None:
    body = {"password": PASSWORD}
    answer = jobs.stack.request("DELETE", "/api/v1/users/me", headers=account.headers, json=body)
    assert 204 == answer.status_code, answer.text


def wait_erased(jobs: Jobs, account: Account) -> None:
    url = jobs.stack.database_url
    until(lambda: count_rows(url, account.id)["users"] == 0, timeout=60, interval=0.2)
    assert {0} == set(count_rows(url, account.id).values())


def assert_no_failures(jobs: Jobs) -> None:
    """No worker of this test logged a failure."""
    for worker in jobs.stack.running("batch_worker"):
        assert "_failed" not in worker.output()


def test_erased_in_the_middle_of_a_large_batch(jobs: Jobs) -> None:
    """Two workers hold its chunks: no row remains, and another user's batch completes."""
    account, task_id, texts = jobs.submit(20_000)
    jobs.start_workers(2)
    jobs.wait_midway(task_id, len(texts))
    other = jobs.submit(100)
    erase(jobs, account)
    wait_erased(jobs, account)
    jobs.judge(*other)
    assert_no_failures(jobs)


def test_a_worker_killed_while_erasing_is_replaced(jobs: Jobs) -> None:
    """kill -9 in the middle: the next worker finishes; another account keeps every row."""
    url = jobs.stack.database_url
    worker = jobs.start_worker()
    other = jobs.submit(30)
    jobs.judge(*other)
    until(lambda: count_rows(url, other[0].id)["usage"], timeout=20)  # flushed late
    before = count_rows(url, other[0].id)
    account, task_id, texts = jobs.submit(20_000)
    jobs.wait_midway(task_id, len(texts))
    query(
        url,
        "INSERT INTO predictions (id, user_id, text, sentiment, confidence, low_confidence, model)"
        " SELECT gen_random_uuid(), :user, 'x', 'positive', 1, false, 'm'"
        " FROM generate_series(1, 200000)",
        user=account.id,
    )
    erase(jobs, account)
    until(
        lambda: 0 < count_rows(url, account.id)["predictions"] < 200_000, timeout=30, interval=0.01
    )
    worker.kill()
    remaining = count_rows(url, account.id)
    assert (1, True) == (remaining["users"], remaining["predictions"] > 0)
    jobs.start_worker()
    wait_erased(jobs, account)
    assert before == count_rows(url, other[0].id)
    assert_no_failures(jobs)
