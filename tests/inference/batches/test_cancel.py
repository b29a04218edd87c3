"""Reliability case 113: cancel at any moment, with and without workers; the status never flips."""

import threading
import time
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from support import faulty_model
from support.jobs import Jobs
from support.rows import query
from support.stack import Account, Service

TERMINAL = {"batch.cancelled", "batch.completed", "batch.completed_with_errors", "batch.failed"}


def request(jobs: Jobs, account: Account, task_id: str, verb: str = "cancel") -> httpx.Response:
    return jobs.stack.post(f"/api/v1/sentiment/task/{task_id}/{verb}", account)


def cancel(jobs: Jobs, account: Account, task_id: str) -> dict[str, Any]:
    answer = request(jobs, account, task_id)
    assert 200 == answer.status_code, answer.text
    task = dict(answer.json())
    assert ("cancelled", None) == (task["status"], task["eta_seconds"])
    return task


def check(jobs: Jobs, account: Account, task: dict[str, Any]) -> None:
    """Check the batch against its response: rows, status, one end, and no open chunks."""
    url, task_id = jobs.stack.database_url, task["task_id"]
    assert task == jobs.stack.task(account, task_id)
    assert task["done"] == jobs.done(task_id) == len(task["results"])
    ends = query(url, "SELECT action FROM audit_events WHERE subject_id = :id", id=task_id)
    assert ["batch.cancelled"] == [action for (action,) in ends if action in TERMINAL]
    left = "SELECT count(*) FROM batch_chunks WHERE batch_id = :id AND state <> 'done'"
    assert [(0,)] == query(url, left, id=task_id)
    history = "SELECT count(*) FROM predictions WHERE user_id = :id"
    assert [(task["done"],)] == query(url, history, id=account.id)


def test_case_113_cancel_without_a_worker(jobs: Jobs) -> None:
    """Waiting chunks are never started, even by workers that start later with old messages."""
    account, task_id, _ = jobs.submit(50)
    task = cancel(jobs, account, task_id)
    assert (0, 0, None) == (task["done"], task["failed"], task["started_at"])
    jobs.start_worker()
    jobs.judge(*jobs.submit(20))
    check(jobs, account, task)


def test_case_113_cancel_while_it_runs(jobs: Jobs) -> None:
    """The chunks that two workers hold are not stored; the counts are exact and stay."""
    workers = jobs.start_workers(2)
    account, task_id, _ = jobs.submit(400)
    jobs.wait_midway(task_id, 400)
    task = cancel(jobs, account, task_id)
    assert 0 < task["done"] < 400
    jobs.judge(*jobs.submit(40))
    check(jobs, account, task)
    assert _chunks(workers, "done") > 0
    assert _chunks(workers, "lost") <= 2, "each worker had at most one chunk in hand"


def _chunks(workers: list[Service], outcome: str) -> float:
    name = f'valence_batch_chunks_total{{outcome="{outcome}"}}'
    lines = [
        line
        for worker in workers
        for line in httpx.get(f"{worker.internal_url}/metrics", timeout=10).text.splitlines()
        if line.startswith(name)
    ]
    return sum(float(line.split()[-1]) for line in lines)


def test_case_113_cancel_twice_and_by_others(jobs: Jobs) -> None:
    """A second cancel gives the same answer; another user gets 404 before and after."""
    account, task_id, _ = jobs.submit(20)
    stranger = jobs.stack.account()
    unknown = request(jobs, stranger, str(uuid.uuid4()))
    foreign = [request(jobs, stranger, task_id)]
    tasks = [cancel(jobs, account, task_id) for _ in range(2)]
    foreign.append(request(jobs, stranger, task_id))
    assert tasks[0] == tasks[1]
    assert [404] * 3 == [answer.status_code for answer in (unknown, *foreign)]
    check(jobs, account, tasks[0])


def test_case_113_what_is_done_cannot_be_cancelled(jobs: Jobs) -> None:
    """The response is 409, and the batch stays completed."""
    jobs.start_worker()
    account, task_id, texts = jobs.submit(20)
    jobs.judge(account, task_id, texts)
    answer = request(jobs, account, task_id)
    assert (409, "The batch has already ended") == (answer.status_code, answer.json()["detail"])
    jobs.judge(account, task_id, texts)


def test_case_113_cancel_around_the_last_commit(jobs: Jobs, tmp_path: Path) -> None:
    """At random times around the end: cancelled with a part, or completed with everything."""
    quick = faulty_model.write(tmp_path / "quick-1", seconds=0.02)
    jobs.start_worker(model_dir=quick)
    outcomes, moment = set(), 0.04
    for rounds in range(30):
        account, task_id, texts = jobs.submit(10)
        time.sleep(moment)  # the moment is what varies
        answer = request(jobs, account, task_id)
        outcomes.add(answer.status_code)
        if answer.status_code == 409:
            jobs.judge(account, task_id, texts)
            moment /= 1.5
        else:
            check(jobs, account, answer.json())
            moment *= 1.4  # so that it closes in on the end from either side
        if rounds >= 5 and outcomes == {200, 409}:
            return
    raise AssertionError(f"always {outcomes}")


def test_case_116_progress_while_failed_texts_are_retried(jobs: Jobs) -> None:
    """Polled throughout: never above the total, and only the retry reduces it."""
    jobs.start_worker(max_attempts=1)
    account, task_id, texts = jobs.submit(60, at_30=faulty_model.RAISES)
    stop, told = threading.Event(), []

    def watch() -> None:
        while not stop.is_set():
            told.append(jobs.stack.task(account, task_id))
            time.sleep(0.05)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        task = jobs.stack.finish(account, task_id)
        assert ("completed_with_errors", 1) == (task["status"], task["failed"])
        again = request(jobs, account, task_id, "retry").json()
        found = (again["status"], again["done"], again["failed"])
        assert ("processing", len(texts) - 1, 0) == found
        task = jobs.stack.finish(account, task_id)
        assert ("completed_with_errors", len(texts)) == (task["status"], task["done"])
    finally:
        stop.set()
        watching.join(30)
    falls = [(a["done"], b["done"]) for a, b in pairwise(told) if b["done"] < a["done"]]
    assert falls in ([], [(60, 59)]), "only the retry takes anything back"
    for each in told:
        assert 0 <= each["failed"] <= each["done"] <= each["total"]
        ended = each["status"] not in {"pending", "processing"}
        assert (each["progress"] == 1) == ended
