"""Batches over HTTP: status, list, summary, retry, deletion."""

import json
from typing import Any

import httpx
import pytest

from support.files import stored
from support.jobs import CHUNK_TEXTS
from support.owned_rows import count_rows
from support.rows import query
from support.stack import Account, Stack
from support.waiting import until
from valence_common.celery_app import QUEUE

TASKS, TASK = "/api/v1/sentiment/tasks", "/api/v1/sentiment/task"
MODEL = "valence-default@1.0.0"


def listed(stack: Stack, account: Account, **parameters: Any) -> dict[str, Any]:
    answer = stack.get(f"{TASKS}?{httpx.QueryParams(parameters)}", account)
    assert 200 == answer.status_code, answer.text
    return dict(answer.json())


def test_status_has_priority_rate_and_eta(stack: Stack, account: Account) -> None:
    """The status has priority, rate and ETA; an ended batch has no ETA."""
    task = stack.finish(account, stack.submit(account, ["good", "bad"]))
    assert (5, None, 2) == (task["priority"], task["eta_seconds"], len(task["results"]))
    assert task["rate"] > 0


def test_list_has_the_items_of_the_status_without_results(
    stack: Stack, account: Account, database_url: str
) -> None:
    """The list is newest first, in pages."""
    assert {"items": [], "next_cursor": None} == listed(stack, account)
    made = [stored(database_url, account.id, ["a"]) for _ in range(3)]
    first = listed(stack, account, limit=2)
    second = listed(stack, account, limit=2, cursor=first["next_cursor"])
    items = first["items"] + second["items"]
    assert (made[::-1], None) == ([item["task_id"] for item in items], second["next_cursor"])
    for item in items:
        task = stack.task(account, item["task_id"])
        del task["results"]
        assert task == item


def test_list_filters_by_one_state_or_several(
    stack: Stack, account: Account, database_url: str
) -> None:
    """`status` can be repeated; `from` is inclusive and `to` exclusive."""
    states = ("completed", "failed", "cancelled")
    made = {s: stored(database_url, account.id, ["a"], status=s) for s in states}
    for parameters, expected in (
        ([("status", "failed")], ["failed"]),
        ([("status", "failed"), ("status", "completed")], ["failed", "completed"]),
        ([("status", "pending")], []),
        ([("from", "2026-01-01T00:00:00Z")], [*made][::-1]),
        ([("to", "2026-01-01T00:00:00Z")], []),
    ):
        answer = stack.get(f"{TASKS}?{httpx.QueryParams(parameters)}", account)
        found = [item["task_id"] for item in answer.json()["items"]]
        assert [made[state] for state in expected] == found


@pytest.mark.parametrize(
    "parameters",
    ["status=done", "limit=0", "limit=101", "cursor=x", "from=yesterday", "to=1", "color=red"],
)
def test_list_rejects_invalid_parameters(stack: Stack, account: Account, parameters: str) -> None:
    """Invalid parameters get 422, not the whole list."""
    assert 422 == stack.get(f"{TASKS}?{parameters}", account).status_code


def test_summary_is_of_what_the_status_counts(stack: Stack, account: Account) -> None:
    """A batch scored by the default model, with its terms."""
    texts = ["I love this product", "I love it so much", "awful, terrible service"]
    task = stack.finish(account, stack.submit(account, texts))
    answer = stack.get(f"{TASK}/{task['task_id']}/summary", account)
    assert 200 == answer.status_code, answer.text
    summary = answer.json()
    said = [result["sentiment"] for result in task["results"]]
    assert {label: said.count(label) for label in ("positive", "negative")} == summary["labels"]
    sure = [result["confidence"] for result in task["results"]]
    assert pytest.approx(sum(sure) / 3) == summary["mean_confidence"]
    assert ("completed", 3, 0, [MODEL], None) == tuple(
        summary[name] for name in ("status", "done", "failed", "models", "terms_reason")
    )
    assert [(0.5, 0.55), (0.95, 1.0)] == [
        (each["from"], each["to"]) for each in (summary["histogram"][0], summary["histogram"][-1])
    ]
    assert 3 == sum(each["count"] for each in summary["histogram"]) == summary["terms"]["sampled"]
    assert ("love", 2) in {(t["term"], t["texts"]) for t in summary["terms"]["positive"]}


def test_summary_by_another_model_has_a_reason(
    stack: Stack, account: Account, database_url: str
) -> None:
    """Its numbers are complete all the same."""
    task = stored(database_url, account.id, ["a", "b"])
    summary = stack.get(f"{TASK}/{task}/summary", account).json()
    assert (None, "another_model", 1) == (
        summary["terms"],
        summary["terms_reason"],
        summary["labels"]["positive"],
    )


def used_today(stack: Stack, account: Account) -> int:
    [state] = [
        part for part in _limits(stack, account).split(",") if part.strip().startswith('"texts"')
    ]
    return -int(state.partition("r=")[2].partition(";")[0])


def _limits(stack: Stack, account: Account) -> str:
    body = {"json": {"text": "good"}}
    return str(stack.post("/api/v1/sentiment/analyze", account, **body).headers["ratelimit"])


def test_failed_texts_are_tried_again_and_count(
    stack: Stack, account: Account, database_url: str
) -> None:
    """The texts are scored at their indexes; each counts against the daily quota."""
    task = stored(
        database_url,
        account.id,
        ["good", "bad", "fine"],
        sizes=[1, 1, 1],
        failed={0, 2},
        status="completed_with_errors",
    )
    before = used_today(stack, account)
    answer = stack.post(f"{TASK}/{task}/retry", account)
    assert (200, "processing", 1) == (
        answer.status_code,
        answer.json()["status"],
        answer.json()["done"],
    )
    assert before + 2 + 1 == used_today(stack, account)  # and one to ask
    done = stack.finish(account, task)
    assert ("completed", 0) == (done["status"], done["failed"])
    assert [MODEL, "test@1", MODEL] == [result["model"] for result in done["results"]]
    again = stack.post(f"{TASK}/{task}/retry", account)
    assert (409, "no failed texts" in again.json()["detail"]) == (again.status_code, True)


def test_workers_are_woken_by_accepted_and_retried_batches(web: Stack) -> None:
    """The service sends a message for each chunk; no batch waits for the workers' next sweep."""
    account = web.account()
    with web.redis() as client:
        before = client.llen(QUEUE)
        web.submit(account, [f"text {n}" for n in range(3 * CHUNK_TEXTS)])
        assert before + 3 == client.llen(QUEUE)
        failed = {"sizes": [1, 1], "failed": {0, 1}, "status": "failed"}
        task = stored(web.database_url, account.id, ["good", "bad"], **failed)
        assert 200 == web.post(f"{TASK}/{task}/retry", account).status_code
        assert before + 3 + 2 == client.llen(QUEUE)


def test_retry_of_texts_that_are_not_stored_is_refused_with_a_sentence(
    stack: Stack, account: Account, database_url: str
) -> None:
    """The response is 409, and nothing is counted."""
    task = stored(
        database_url, account.id, ["a"], sizes=[1], failed={0}, status="failed", stored=False
    )
    answer = stack.post(f"{TASK}/{task}/retry", account)
    assert (409, True) == (answer.status_code, "not stored" in answer.json()["detail"])
    assert "ratelimit" in answer.headers, "asking for work is limited"


def test_a_deleted_batch_is_hidden_at_once_and_deleted_soon(
    stack: Stack, account: Account, database_url: str
) -> None:
    """The batch is gone from every route and the data export; the history stays."""
    kept = stack.submit(account, ["good", "bad"])
    task = stack.submit(account, ["good", "bad", "fine"])
    for each in (kept, task):
        stack.finish(account, each)
    gone = stack.request("DELETE", f"{TASK}/{task}", headers=account.headers)
    assert (204, b"") == (gone.status_code, gone.content)
    for path in ("", "/summary", "/results", "/results?format=csv"):
        answer = stack.get(f"{TASK}/{task}{path}", account)
        assert (404, "Task not found") == (answer.status_code, answer.json()["detail"])
    for method, verb in (("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
        answer = stack.request(method, f"{TASK}/{task}{verb}", headers=account.headers)
        assert 404 == answer.status_code
    assert [kept] == [item["task_id"] for item in listed(stack, account)["items"]]
    taken = stack.get("/api/v1/users/me/export", account).json()
    assert [kept] == [batch["id"] for batch in taken["batches"]]
    assert {kept} == {row["batch_id"] for row in taken["batch_results"]}
    assert 5 == len(stack.get("/api/v1/sentiment/history", account).json()["items"])
    until(lambda: count_rows(database_url, account.id)["batches"] == 1, timeout=60)
    assert (1, 2) == tuple(
        count_rows(database_url, account.id)[t] for t in ("batch_chunks", "batch_results")
    )
    told = "SELECT type, data FROM events WHERE subject_id = :id ORDER BY id"
    assert ("batch.deleted", {"total": 3}) == query(database_url, told, id=task)[-1]


def test_lifecycle_is_audited_without_content(
    stack: Stack, account: Account, database_url: str
) -> None:
    """The audit entry has the actor, the batch and counts."""
    task = stored(database_url, account.id, ["secret words"], status="pending", finished_at=None)
    assert 200 == stack.post(f"{TASK}/{task}/cancel", account).status_code
    rows = query(
        database_url,
        "SELECT actor_id, action, details FROM audit_events WHERE subject_id = :id",
        id=task,
    )
    [(actor, action, details)] = rows
    assert (account.id, "batch.cancelled") == (str(actor), action)
    assert {"total": 1, "done": 1, "failed": 0} == details
    assert "secret" not in json.dumps(details)
