"""Resumed downloads: only of the same run, and only from a known index."""

import json
import uuid
from typing import Any

import httpx
import pytest

from support.files import stored
from support.rows import query
from support.stack import Account, Stack

TEXTS = [f"text {n}" for n in range(50)]
TABLE = {"columns": ["note", "text"], "text_column": 1, "format": "csv"}
NOTES = [["two\nlines"]] * len(TEXTS)


@pytest.fixture(scope="module")
def owner(stack: Stack) -> Account:
    return stack.account()


@pytest.fixture
def task_id(owner: Account, database_url: str) -> str:
    """A file of fifty rows, in chunks of ten."""
    return stored(database_url, owner.id, TEXTS, rows=NOTES, sizes=[10] * 5, **TABLE)


def read(
    stack: Stack,
    owner: Account,
    task_id: str,
    known: str | None = None,
    *,
    encoding: str = "identity",
    **parameters: Any,
) -> httpx.Response:
    """Request results with `If-Match`."""
    path = f"/api/v1/sentiment/task/{task_id}/results?{httpx.QueryParams(parameters)}"
    headers = {"accept-encoding": encoding, **owner.headers}
    return stack.request("GET", path, headers=headers | ({"if-match": known} if known else {}))


FORMS = [
    ({"format": "json"}, {"format": "json", "cursor": 20}),
    ({"format": "ndjson"}, {"format": "ndjson", "from": 20}),
    ({"format": "csv"}, {"format": "csv", "from": 20}),
]


@pytest.mark.parametrize(("whole", "rest"), FORMS)
def test_a_resumed_download_is_of_the_same_run(
    stack: Stack,
    owner: Account,
    database_url: str,
    task_id: str,
    whole: dict[str, str],
    rest: dict[str, str],
) -> None:
    """The first part's ETag matches the rest until the batch is retried; then 412."""
    tag = read(stack, owner, task_id, **whole).headers["etag"]
    assert ('"', '"') == (tag[0], tag[-1])
    for known in (tag, f'"other", {tag}', "*", None):
        answer = read(stack, owner, task_id, known, **rest)
        assert (200, tag) == (answer.status_code, answer.headers["etag"])
    for other in (
        "W/" + tag,
        '"other"',
        "nonsense",
        ",",
        '"',
        tag.replace(task_id, str(uuid.uuid4())),
    ):
        assert 412 == read(stack, owner, task_id, other, **rest).status_code
    query(database_url, "UPDATE batches SET finished_at = now() WHERE id = :id", id=task_id)
    refused = read(stack, owner, task_id, tag, **rest)
    assert (412, "application/problem+json") == (
        refused.status_code,
        refused.headers["content-type"],
    )
    assert "from the start" in refused.json()["detail"]
    assert tag != read(stack, owner, task_id, **rest).headers["etag"]
    running = "UPDATE batches SET status = 'processing', finished_at = NULL WHERE id = :id"
    query(database_url, running, id=task_id)
    assert 409 == read(stack, owner, task_id, tag, **rest).status_code


def test_each_format_has_its_own_etag(stack: Stack, owner: Account, task_id: str) -> None:
    """Compressed streams have tags of their own; either form can resume the other."""
    tags = {
        form["format"]: read(stack, owner, task_id, **form).headers["etag"] for form, _ in FORMS
    }
    zipped = read(stack, owner, task_id, encoding="gzip", format="csv").headers["etag"]
    assert 4 == len({zipped, *tags.values()})
    assert 200 == read(stack, owner, task_id, zipped, **{"format": "csv", "from": 20}).status_code
    assert 412 == read(stack, owner, task_id, tags["csv"], format="ndjson").status_code


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_ranges_of_bytes_are_not_served(
    stack: Stack, owner: Account, task_id: str, form: str
) -> None:
    """`Range` is ignored: the response is the whole document."""
    path = f"/api/v1/sentiment/task/{task_id}/results?format={form}"
    answer = stack.request("GET", path, headers=owner.headers | {"range": "bytes=10-20"})
    assert (200, "none") == (answer.status_code, answer.headers["accept-ranges"])
    assert answer.content == stack.get(path, owner).content


def test_csv_of_a_cancelled_file_batch_cannot_be_resumed(
    stack: Stack, owner: Account, database_url: str, task_id: str
) -> None:
    """A cancelled file batch in CSV: the number of records does not give the next index."""
    for table in (
        "batch_results WHERE batch_id = :id AND position",
        "batch_chunks WHERE batch_id = :id AND start",
    ):
        query(database_url, f"DELETE FROM {table} BETWEEN 10 AND 19", id=task_id)
    cancelled = "UPDATE batches SET status = 'cancelled' WHERE id = :id"
    query(database_url, cancelled, id=task_id)
    refused = read(stack, owner, task_id, **{"format": "csv", "from": 10})
    assert (409, True) == (refused.status_code, "ndjson" in refused.json()["detail"])
    assert 200 == read(stack, owner, task_id, format="csv").status_code
    rest = read(stack, owner, task_id, **{"format": "ndjson", "from": 10}).text.splitlines()
    assert list(range(20, 50)) == [json.loads(line)["index"] for line in rest]
    plain = stored(database_url, owner.id, TEXTS)
    query(database_url, cancelled, id=plain)
    rows = read(stack, owner, plain, **{"format": "csv", "from": 10}).text.splitlines()
    assert "10,text 10" == rows[0][:10]
