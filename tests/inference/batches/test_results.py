"""Results over HTTP: pages and streams in the order of the texts, with the file's columns."""

import csv
import gzip
import io
import json
import uuid
from typing import Any

import httpx
import pytest

from support.files import MODEL, confidence, sentiment, stored
from support.memory import forget_peak, peak_bytes
from support.rows import query
from support.stack import Account, Stack

MOST_GROWTH = 32 * 1024 * 1024

ODD = [
    "plain",
    "",
    " leading and trailing ",
    'quo"ted',
    "two\nlines",
    "two\r\nlines",
    "a,b;c\td",
    "=1+1",
    "@cmd",
    "'",
    "é🙂",
]
"""Cells as in real files; each must come back unchanged."""


def path(task_id: str, **parameters: Any) -> str:
    return f"/api/v1/sentiment/task/{task_id}/results?{httpx.QueryParams(parameters)}"


def rows_of(document: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(document, newline="")))


def answer_of(n: int) -> list[str]:
    """Return the answer columns of the text at index `n` in a CSV."""
    low = "true" if n % 10 == 0 else "false"
    return [sentiment(n), json.dumps(confidence(n)), low, MODEL, ""]


@pytest.fixture(scope="module")
def owner(stack: Stack) -> Account:
    return stack.account()


@pytest.fixture(scope="module")
def plain(owner: Account, database_url: str) -> str:
    """A list of 5,000 texts; two failed."""
    texts = [f"text {n}" for n in range(5_000)]
    sizes = [500, 1, 1, 498]
    return stored(database_url, owner.id, texts, sizes=sizes, failed={500, 501})


@pytest.fixture(scope="module")
def table(owner: Account, database_url: str) -> str:
    """A CSV file with unusual cells, and a column name that the answer uses."""
    rows = [[cell, str(n)] for n, cell in enumerate(ODD)]
    names = {"columns": ["note", "text", "sentiment"], "text_column": 1, "format": "csv"}
    return stored(database_url, owner.id, [f"{c}x" for c in ODD], rows=rows, sizes=[3, 1], **names)


def test_json_comes_in_pages(stack: Stack, owner: Account, plain: str) -> None:
    """Each page starts where the previous one ended; the last one has no cursor."""
    items, cursor = [], 0
    while cursor is not None:
        page = stack.get(path(plain, limit=999, cursor=cursor), owner).json()
        items += page["items"]
        cursor = page["next_cursor"]
    assert list(range(5_000)) == [item["index"] for item in items]
    assert {
        "index": 499,
        "text": "text 499",
        "sentiment": "positive",
        "confidence": 0.99,
        "low_confidence": False,
        "model": MODEL,
        "error": None,
    } == items[499]
    nothing = dict.fromkeys(("sentiment", "confidence", "low_confidence", "model"))
    failed = {"index": 500, "text": "text 500", "error": "could not be scored", **nothing}
    assert failed == items[500]
    assert 100 == len(stack.get(path(plain), owner).json()["items"])


def test_ndjson_is_the_same_items_a_line_each(stack: Stack, owner: Account, plain: str) -> None:
    """All results in order, as a file named after the task."""
    answer = stack.get(path(plain, format="ndjson"), owner)
    assert "application/x-ndjson" == answer.headers["content-type"]
    assert f'attachment; filename="{plain}.ndjson"' == answer.headers["content-disposition"]
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert list(range(5_000)) == [line["index"] for line in lines]
    first = stack.get(path(plain, limit=1_000), owner).json()["items"]
    assert first == lines[:1_000]


def test_csv_of_a_list_has_index_and_text(stack: Stack, owner: Account, plain: str) -> None:
    """Lines end with CR LF, as in RFC 4180."""
    answer = stack.get(path(plain, format="csv"), owner)
    assert "text/csv; charset=utf-8" == answer.headers["content-type"]
    assert f'attachment; filename="{plain}.csv"' == answer.headers["content-disposition"]
    assert 5_001 == answer.text.count("\r\n")
    names, *rows = rows_of(answer.text)
    answers = ["sentiment", "confidence", "low_confidence", "model", "error"]
    assert ["index", "text", *answers] == names
    assert ["500", "text 500", "", "", "", "", "could not be scored"] == rows[500]
    assert [["7", "text 7", *answer_of(7)]] == rows[7:8]


def test_csv_of_a_file_has_its_columns_and_cells(stack: Stack, owner: Account, table: str) -> None:
    """Columns in order, cells unchanged; an answer column whose name is in use gets a prefix."""
    names, *rows = rows_of(stack.get(path(table, format="csv"), owner).text)
    ours = ["valence_sentiment", "confidence", "low_confidence", "model", "error"]
    assert ["note", "text", "sentiment", *ours] == names
    assert [[c, f"{c}x", str(n), *answer_of(n)] for n, c in enumerate(ODD)] == rows


def test_json_of_a_file_has_its_rows(stack: Stack, owner: Account, table: str) -> None:
    """Rows are objects with all columns by name, including the text's."""
    expected = [{"note": c, "text": f"{c}x", "sentiment": str(n)} for n, c in enumerate(ODD)]
    items = stack.get(path(table), owner).json()["items"]
    assert expected == [item["row"] for item in items]
    lines = stack.get(path(table, format="ndjson"), owner).text.splitlines()
    assert items == [json.loads(line) for line in lines]


def test_fields_of_ndjson_keep_their_types(stack: Stack, owner: Account, database_url: str) -> None:
    """JSON keeps types and absent fields; CSV has values as JSON, and empty cells for null."""
    rows = [{"id": 1, "tags": ["a", None]}, None, {"id": None, "more": True}, {"id": "1"}]
    names = {"columns": ["id", "body", "tags", "more"], "text_column": 1, "format": "ndjson"}
    task = stored(database_url, owner.id, ["a", "b", "c", "d"], rows=rows, **names)
    items = stack.get(path(task), owner).json()["items"]
    assert [
        {"id": 1, "body": "a", "tags": ["a", None]},
        {"body": "b"},
        {"id": None, "body": "c", "more": True},
        {"id": "1", "body": "d"},
    ] == [item["row"] for item in items]
    cells = [row[:4] for row in rows_of(stack.get(path(task, format="csv"), owner).text)[1:]]
    assert [
        ["1", "a", '["a",null]', ""],
        ["", "b", "", ""],
        ["", "c", "", "true"],
        ["1", "d", "", ""],
    ] == cells


@pytest.mark.parametrize("form", ["ndjson", "csv"])
@pytest.mark.parametrize("start", [1, 499, 500, 501, 2_000, 4_999, 5_000])
def test_streams_resume_at_any_index(
    stack: Stack, owner: Account, plain: str, form: str, start: int
) -> None:
    """The earlier part and the rest are the whole document, byte for byte."""
    whole = stack.get(path(plain, format=form), owner).content
    rest = stack.get(path(plain, format=form, **{"from": start}), owner).content
    lines = whole.splitlines(keepends=True)
    assert whole == b"".join(lines[: start + (form == "csv")]) + rest


def test_gzip_when_asked(stack: Stack, owner: Account, plain: str) -> None:
    """The same bytes after decompression, with `Vary: Accept-Encoding`."""
    url, plainly = path(plain, format="csv"), {"accept-encoding": "identity"}
    answer = stack.request("GET", url, headers={**owner.headers, **plainly})
    assert "content-encoding" not in answer.headers
    assert "Accept-Encoding" == answer.headers["vary"]
    zipped = {**owner.headers, "accept-encoding": "gzip"}
    with stack.client.stream("GET", stack.url(url), headers=zipped) as stream:
        raw = b"".join(stream.iter_raw())
        said = stream.headers
    assert ("gzip", "Accept-Encoding") == (said["content-encoding"], said["vary"])
    assert len(raw) < len(answer.content) / 3
    assert answer.content == gzip.decompress(raw)


def test_texts_that_are_not_stored_are_null(
    stack: Stack, owner: Account, database_url: str
) -> None:
    """Null in JSON, empty in CSV, and no `row`."""
    names = {"columns": ["note", "text"], "text_column": 1, "format": "csv"}
    task = stored(database_url, owner.id, ["a", "b"], rows=[["x"], ["y"]], stored=False, **names)
    items = stack.get(path(task), owner).json()["items"]
    assert [(None, False, "negative"), (None, False, "positive")] == [
        (item["text"], "row" in item, item["sentiment"]) for item in items
    ]
    rows = rows_of(stack.get(path(task, format="csv"), owner).text)[1:]
    assert [["", "", *answer_of(n)] for n in range(2)] == rows


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_before_the_end_there_are_none(
    stack: Stack, owner: Account, database_url: str, form: str
) -> None:
    """The response is 409 with `Retry-After`."""
    task = stored(database_url, owner.id, ["a"], status="processing", finished_at=None)
    answer = stack.get(path(task, format=form), owner)
    assert (409, True) == (answer.status_code, 1 <= int(answer.headers["retry-after"]) <= 60)
    assert "application/problem+json" == answer.headers["content-type"]


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_others_results_are_not_found(stack: Stack, plain: str, form: str) -> None:
    """A foreign batch is answered like an unknown one."""
    stranger = stack.account()
    answers = [stack.get(path(t, format=form), stranger) for t in (plain, str(uuid.uuid4()))]
    assert [404, 404] == [answer.status_code for answer in answers]
    assert ["Task not found"] * 2 == [answer.json()["detail"] for answer in answers]


@pytest.mark.parametrize(
    "parameters",
    [
        {"format": "xml"},
        {"limit": 0},
        {"limit": 1_001},
        {"from": 1},
        {"format": "csv", "limit": 1},
        {"format": "ndjson", "cursor": 1},
        {"format": "csv", "from": -1},
        {"format": "csv", "from": 2**31},
        {"color": "red"},
    ],
)
def test_invalid_parameters_are_rejected(
    stack: Stack, owner: Account, plain: str, parameters: dict[str, Any]
) -> None:
    """Parameters of another format, or out of range, get 422."""
    assert 422 == stack.get(path(plain, **parameters), owner).status_code


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("change", ["deleted_at = now()", "finished_at = now()"])
def test_a_stream_whose_batch_changes_is_broken_off(
    stack: Stack, owner: Account, database_url: str, change: str, encoding: str
) -> None:
    """After a delete or retry the connection breaks, so the client sees that rows are missing."""
    texts = [f"{n} {uuid.uuid4()} " * 50 for n in range(10_000)]
    task = stored(database_url, owner.id, texts)
    headers = {**owner.headers, "accept-encoding": encoding}
    with (
        httpx.Client(trust_env=False, timeout=30) as client,
        client.stream("GET", stack.url(path(task, format="csv")), headers=headers) as answer,
    ):
        stream = answer.iter_raw()
        next(stream)
        query(database_url, f"UPDATE batches SET {change} WHERE id = :id", id=task)
        with pytest.raises(httpx.RemoteProtocolError):
            list(stream)
    assert "download_broken_off" in stack.running("inference")[0].output()


def test_a_large_stream_takes_little_memory(
    stack: Stack, owner: Account, database_url: str
) -> None:
    """40 MB of texts are sent one page at a time, compressed or not."""
    texts = [f"{n} {uuid.uuid4()} ".ljust(2_000, "x") for n in range(20_000)]
    task = stored(database_url, owner.id, texts)
    pid = stack.running("inference")[0].pid
    before = forget_peak(pid)
    for encoding in ("identity", "gzip"):
        url, headers = stack.url(path(task, format="ndjson")), {"accept-encoding": encoding}
        size = 0
        with stack.client.stream("GET", url, headers=owner.headers | headers) as answer:
            for piece in answer.iter_bytes():
                size += len(piece)
        assert size > 40_000_000
    grown = peak_bytes(pid) - before
    assert grown <= MOST_GROWTH, f"grew by {grown / 2**20:.1f} MiB"
