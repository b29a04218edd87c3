"""Reliability case 20: batches of every format, stored whole or rejected without a trace."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from support.invariants import CheckedClient
from support.raw import answers, connect, message
from support.rows import query
from support.stack import Account, Stack
from valence_common.celery_app import QUEUE

BATCH = "/api/v1/sentiment/analyze/batch"
JSON, CSV, NDJSON = "application/json", "text/csv", "application/x-ndjson"
BOM = "\ufeff"
LONG = "y" * 10_001
FINE = ["fine"] * 99_999


@pytest.fixture(scope="module")
def stack(shared_web: Stack) -> Iterator[Stack]:
    """No worker, so that the queue keeps what is put into it; chunks of the default size."""
    with shared_web.beside(inference={}) as stack:
        yield stack


class Case(NamedTuple):
    """A body, and what must be said of it."""

    kind: str
    body: str | bytes
    status: int
    field: str | None
    path: str = BATCH


def _json(texts: Any) -> str:
    return json.dumps({"texts": texts})


def _csv(*rows: str, head: str = "text", end: str = "\r\n") -> str:
    return end.join([head, *rows])


def _form(content: str, name: str = "a.csv", **options: str) -> bytes:
    parts = [
        f'Content-Disposition: form-data; name="{option}"\r\n\r\n{value}'
        for option, value in options.items()
    ]
    parts.append(f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n{content}')
    return "".join(f"--b\r\n{part}\r\n" for part in parts).encode() + b"--b--\r\n"


FORM = "multipart/form-data; boundary=b"
REFUSED = {
    "no text": Case(JSON, _json([]), 422, "body.texts"),
    "a text too many": Case(JSON, _json([*FINE, "fine", "fine"]), 422, "body.texts"),
    "null": Case(JSON, _json([*FINE[:77], None, *FINE[:100]]), 422, "body.texts.77"),
    "number": Case(JSON, _json([*FINE[:77], 7, *FINE[:100]]), 422, "body.texts.77"),
    "list": Case(JSON, _json([*FINE[:77], ["fine"], None]), 422, "body.texts.77"),
    "over-long at the end": Case(JSON, _json([*FINE, LONG]), 422, "body.texts.99999"),
    "a string": Case(JSON, _json("fine"), 422, "body.texts"),
    "an object": Case(JSON, _json({"0": "fine"}), 422, "body.texts"),
    "no list": Case(JSON, _json(None), 422, "body.texts"),
    "too large": Case(JSON, _json(["x" * 9_000] * 3_800), 413, None),
    "unclosed list": Case(JSON, '{"texts": ["fine"', 400, None),
    "options beside": Case(JSON, _json(["fine"]), 422, "query.column", f"{BATCH}?column=a"),
    "csv: no row": Case(CSV, _csv(), 422, "body.rows"),
    "csv: a row too many": Case(CSV, _csv(*FINE, "fine", "fine"), 422, "body.rows.100000"),
    "csv: blank": Case(CSV, _csv(*FINE[:77], '" "', *FINE[:9]), 422, "body.rows.77"),
    "csv: over-long at the end": Case(CSV, _csv(*FINE, LONG), 422, "body.rows.99999"),
    "csv: unclosed": Case(CSV, BOM + _csv("fine", '"unclosed'), 422, "body.rows.1"),
    "csv: unclosed, long": Case(CSV, _csv('"' + "x\n" * 10**6), 422, "body.rows.0"),
    "csv: ragged": Case(CSV, _csv("1,a", "2,b,", head="id,text"), 422, "body.rows.1"),
    "csv: no column": Case(CSV, _csv("1,a", head="a,b"), 422, "column"),
    "csv: bad option": Case(CSV, _csv("a"), 422, "query.priority", f"{BATCH}?priority=10"),
    "csv: option twice": Case(
        CSV, _csv("a"), 422, "query.header", f"{BATCH}?header=true&header=true"
    ),
    "csv: blank lines": Case(CSV, _csv("a", *[""] * 100_002), 422, "body.rows.1"),
    "csv: bad url": Case(CSV, _csv("a"), 422, "webhook_url", f"{BATCH}?webhook_url=ftp://x"),
    "csv: unknown option": Case(CSV, _csv("a"), 422, "query", f"{BATCH}?colunm=a"),
    "csv: not utf-8": Case(CSV, b"text\r\nfine\r\nl\xe4rm\r\n", 422, "body.rows.1"),
    "csv: charset": Case(f"{CSV}; charset=latin-1", _csv("a"), 415, None),
    "csv: parameter": Case(f"{CSV}; header=maybe", _csv("a"), 415, None),
    "csv: too large": Case(CSV, _csv(*["x" * 9_000] * 3_800), 413, None),
    "ndjson: no line": Case(NDJSON, BOM + "\r\n\r\n", 422, "body.rows"),
    "ndjson: a line too many": Case(NDJSON, '"fine"\n' * 100_001, 422, "body.rows.100000"),
    "ndjson: null": Case(NDJSON, '"fine"\r\n' * 77 + "null", 422, "body.rows.77"),
    "ndjson: unclosed": Case(NDJSON, BOM + '"fine"\r\n"unclosed', 422, "body.rows.1"),
    "ndjson: over-long": Case(NDJSON, '"fine"\n' * 99_999 + f'"{LONG}"', 422, "body.rows.99999"),
    "form: no file": Case(FORM, b"--b--\r\n", 422, "body.file"),
    "form: bad row": Case(FORM, _form(_csv("fine", " ")), 422, "body.rows.1"),
    "form: bad option": Case(FORM, _form(_csv("a"), priority="0"), 422, "body.priority"),
    "form: unknown part": Case(FORM, _form(_csv("a"), colunm="a"), 422, "body"),
    "form: unknown file": Case(FORM, _form(_csv("a"), name="a.xlsx"), 415, None),
    "form: cut off": Case(FORM, _form(_csv("a", "b"))[:-9], 400, None),
    "another kind": Case("text/plain", "text\nfine\n", 415, None),
}


def _stored(stack: Stack, account: Account) -> list[tuple[Any, ...]]:
    """Batches, chunks and keys of a user."""
    return query(
        stack.database_url,
        "SELECT id FROM batches WHERE user_id = :user"
        " UNION ALL SELECT id FROM batch_chunks WHERE user_id = :user"
        " UNION ALL SELECT batch_id FROM idempotency_keys WHERE user_id = :user",
        user=account.id,
    )


@pytest.mark.parametrize("name", REFUSED)
def test_case_020_refused_batches(stack: Stack, account: Account, name: str) -> None:
    """The first bad index is named, and neither Postgres nor Redis knows of the batch."""
    case = REFUSED[name]
    with stack.redis() as redis:
        before = redis.llen(QUEUE)
        answer = stack.post(
            case.path,
            account,
            content=case.body,
            headers={"content-type": case.kind, "idempotency-key": "refused"},
        )
        assert case.status == answer.status_code, answer.text
        problem = answer.json()
        assert case.field == (problem["errors"][0]["field"] if "errors" in problem else None)
        assert "yyy" not in answer.text
        assert before == redis.llen(QUEUE)
    assert [] == _stored(stack, account)


ACCEPTED = {
    "one text": (JSON, _json(["good"]), 1, None, None),
    "as many as may be": (JSON, _json(["good"] * 100_000), 100_000, None, None),
    "csv": (CSV, _csv("good", '"a ""b""\r\nc"'), 2, ["text"], None),
    "csv with BOM and LF": (CSV, BOM + _csv("1,a", head="id,text", end="\n"), 1, ["id", "text"], 1),
    "csv without header": (f"{CSV}; header=absent; charset=UTF-8", "good\rbad\r", 2, ["1"], None),
    "csv, many": (CSV, _csv(*FINE, "fine"), 100_000, ["text"], None),
    "ndjson": (NDJSON, BOM + '"a"\r\n{"text": "b", "n": 1}\r\n', 2, ["text", "n"], 2),
    "ndjson, many": (NDJSON, '"fine"\n' * 100_000, 100_000, None, None),
    "form": (FORM, _form("a;b\n1;2\n", column="2"), 1, ["a", "b"], 1),
    "form of ndjson": (FORM, _form('"a"\n"b"', name="A.NDJSON"), 2, None, None),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_case_020_accepted_batches(stack: Stack, account: Account, name: str) -> None:
    """Every text is in a chunk of the batch, and workers are rung for."""
    kind, body, total, columns, rows = ACCEPTED[name]
    with stack.redis() as redis:
        before = redis.llen(QUEUE)
        headers = {"content-type": kind}
        answer = stack.post(BATCH, account, content=body, headers=headers)
        assert (202, total) == (answer.status_code, answer.json()["total"]), answer.text
        assert before < redis.llen(QUEUE)
    task_id = answer.json()["task_id"]
    assert f"/api/v1/sentiment/task/{task_id}" == answer.headers["location"]
    stored = query(
        stack.database_url,
        "SELECT b.total, b.columns, (SELECT sum(json_array_length(texts)) FROM batch_chunks"
        " WHERE batch_id = b.id), (SELECT max(json_array_length(rows)) FROM batch_chunks"
        " WHERE batch_id = b.id) FROM batches AS b WHERE id = :id",
        id=task_id,
    )
    assert [(total, columns, total, rows)] == stored


def test_case_020_a_bad_row_ends_the_upload(stack: Stack, account: Account) -> None:
    """It is answered while the rest of the body is still to come, and the connection ends."""
    token = b"Authorization: Bearer " + account.token.encode()
    fields = [token, b"Content-Type: text/csv", b"Content-Length: 30000000"]
    data = message("POST", BATCH, *fields, body=b'text\n"closed"x\n' + b"a\n" * 10_000, close=False)
    with connect(stack.url(BATCH)) as connection:
        connection.sendall(data)
        (answer,) = answers(connection)
    assert (422, "close") == (answer.status, answer.headers["connection"])
    assert "body.rows.0" == json.loads(answer.body)["errors"][0]["field"]


def test_case_020_the_services_take_no_harm(checked: CheckedClient, account: Account) -> None:
    """Memory, files, log and heartbeat are as ever after bodies of the largest size."""
    for name in ("csv: too large", "csv: unclosed, long", "form: bad row", "too large"):
        case = REFUSED[name]
        answer = checked.post(case.path, case.body, account, content_type=case.kind)
        assert case.status == answer.status_code
