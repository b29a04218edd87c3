"""Taking out what is one's own: all of it, nothing of others, never a part for the whole."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import event, text

from support.batches import make_user
from support.files import stored
from support.memory import forget_peak, peak_bytes
from support.rows import query
from support.stack import Account, Stack
from support.waiting import until
from valence_auth import data_export
from valence_auth.schemas import privacy as schemas
from valence_common.db import Database
from valence_common.problems import Unavailable

EXPORT = "/api/v1/users/me/export"
MANY, LARGE = 200_000, 20_000
MOST_GROWTH = 32 * 1024 * 1024

HISTORY = """
    INSERT INTO predictions
        (id, user_id, created_at, text, sentiment, confidence, low_confidence, model)
    SELECT gen_random_uuid(), :user, now() - n * interval '1 second',
        'text number ' || n || repeat(' ', :pad), 'positive', 0.75, false, 'm@1'
    FROM generate_series(1, :count) AS n"""


def export(stack: Stack, account: Account) -> dict[str, Any]:
    answer = stack.get(EXPORT, account)
    assert 200 == answer.status_code, answer.text
    return dict(answer.json())


@contextlib.contextmanager
def begun(stack: Stack, account: Account) -> Iterator[httpx.Response]:
    """A take-out of which only the first bytes are read; it is larger than the sockets' buffers."""
    with (
        httpx.Client(trust_env=False, timeout=30) as client,
        client.stream("GET", stack.url(EXPORT), headers=account.headers) as answer,
    ):
        yield answer


@pytest.fixture
def large(stack: Stack, database_url: str) -> Account:
    """An account whose document is far larger than the buffers between us."""
    account = stack.account()
    query(database_url, HISTORY, user=account.id, count=LARGE, pad=1500)
    return account


def test_take_out_holds_what_was_put_in(stack: Stack, account: Account, database_url: str) -> None:
    """Profile, sessions, history, batches with texts and answers, and what is in the audit log."""
    texts = [f"this is {word}" for word in ("good", "bad", "fine")]
    answers = [
        stack.post("/api/v1/sentiment/analyze", account, json={"text": text}).json()
        for text in texts
    ]
    done = stack.finish(account, stack.submit(account, ["one good text", "one bad text"]))
    query(
        database_url,
        "INSERT INTO api_keys (id, user_id, name, secret_hash, scopes)"
        " VALUES (:id, :user, 'my key', decode('c0ffee', 'hex'), '{analyze}')",
        id=uuid.uuid4(),
        user=account.id,
    )
    query(
        database_url,
        "INSERT INTO identities (id, user_id, issuer, subject)"
        " VALUES (:id, :user, 'https://example.com', 'somebody-there')",
        id=uuid.uuid4(),
        user=account.id,
    )
    query(
        database_url,
        "INSERT INTO usage (user_id, day, key_id, route, requests, texts)"
        " VALUES (:user, '2001-02-03', :key, 'test', 4, 5)",
        user=account.id,
        key=uuid.UUID(int=0),
    )
    document = export(stack, account)
    schemas.Takeout.model_validate_json(json.dumps(document).replace("text_sha256", "text_hash"))
    assert (account.username, account.email) == (
        document["profile"]["username"],
        document["profile"]["email"],
    )
    assert [["analyze", "batch", "history"]] == [s["scopes"] for s in document["sessions"]]
    assert ["my key"] == [key["name"] for key in document["api_keys"]]
    assert ["somebody-there"] == [who["subject"] for who in document["identities"]]
    assert ("2001-02-03", 4, 5) in {
        (day["day"], day["requests"], day["texts"]) for day in document["usage"]
    }
    history = {item["text"]: item for item in document["history"]}
    assert {*texts, "one good text", "one bad text"} == set(history)
    for said, answer in zip(texts, answers, strict=True):
        assert answer["id"] == history[said]["id"]
        assert answer["confidence"] == history[said]["confidence"]
    assert [(done["task_id"], "completed", 2)] == [
        (batch["id"], batch["status"], batch["total"]) for batch in document["batches"]
    ]
    more = {"batch_id": done["task_id"], "cells": None}
    results = [{**result, **more} for result in done["results"]]
    assert results == document["batch_results"]
    actions = [event["action"] for event in document["audit_events"]]
    assert {"batch.accepted", "batch.completed", "account.exported"} <= set(actions)
    assert all(event["by_you"] for event in document["audit_events"])


def test_take_out_holds_the_rows_of_files(
    stack: Stack, account: Account, database_url: str
) -> None:
    """What stood beside the texts, and the names that it stood under."""
    file = {"columns": ["id", "text"], "text_column": 1, "format": "csv"}
    stored(database_url, account.id, ["a", "b"], rows=[["x"], ["y"]], **file)
    document = export(stack, account)
    [batch] = document["batches"]
    assert file == {name: batch[name] for name in file}
    assert [["x"], ["y"]] == [result["cells"] for result in document["batch_results"]]


def test_take_out_is_a_file_without_secrets(stack: Stack, account: Account) -> None:
    """A browser saves it; neither hashes nor tokens are in it."""
    answer = stack.get(EXPORT, account)
    assert 'attachment; filename="valence.json"' == answer.headers["content-disposition"]
    assert "application/json" == answer.headers["content-type"]
    assert "no-store" == answer.headers["cache-control"]
    for secret in ("argon2", 'hash"', account.token, account.refresh_token):
        assert secret not in answer.text


def test_take_out_holds_nothing_of_others(stack: Stack, account: Account) -> None:
    """Two accounts with the same kinds of things: no id of one is in the other's document."""
    other = stack.account()
    for who, said in ((account, "mine alone"), (other, "theirs alone")):
        stack.post("/api/v1/sentiment/analyze", who, json={"text": said})
        stack.finish(who, stack.submit(who, [said]))
    mine, theirs = (stack.get(EXPORT, who).text for who in (account, other))
    assert "mine alone" in mine
    assert "theirs alone" not in mine
    assert _ids(json.loads(theirs)) & _ids(json.loads(mine)) == set()
    assert other.username not in mine


def _ids(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {v for k, v in value.items() if k.endswith("id") and isinstance(v, str)}
        return own.union(*map(_ids, value.values())) - {str(uuid.UUID(int=0))}
    return set().union(*map(_ids, value)) if isinstance(value, list) else set()


def test_take_out_of_a_long_history_needs_little_memory(
    stack: Stack, account: Account, database_url: str
) -> None:
    """Every row is there, in order, and the process has hardly grown."""
    query(database_url, HISTORY, user=account.id, count=MANY, pad=0)
    export(stack, stack.account())
    pid = stack.running("auth")[0].pid
    before, pieces = forget_peak(pid), []
    with begun(stack, account) as answer:
        pieces.extend(answer.iter_bytes())
    grown = peak_bytes(pid) - before
    document = json.loads(b"".join(pieces))
    assert [f"text number {n}" for n in range(MANY, 0, -1)] == [
        item["text"] for item in document["history"]
    ]
    assert grown <= MOST_GROWTH, f"grew by {grown / 2**20:.1f} MiB"


def test_a_long_history_is_read_along_its_index(database_url: str) -> None:
    """Of a table that Postgres knows nothing of, or each page costs as much as all of them."""
    database = Database(SecretStr(database_url), pool_size=1, timeout=20)
    with database.transaction() as session:
        user_id = make_user(session)
        session.execute(text(HISTORY), {"user": user_id, "count": 5_000, "pad": 0})
    plans: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "FROM predictions" in statement:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(line for (line,) in cursor))

    async def take_out() -> list[bytes]:
        return [piece async for piece in await data_export.begin(database, user_id)]

    event.listen(database.engine, "before_cursor_execute", explain)
    asyncio.run(take_out())
    database.close()
    assert 11 == len(plans)
    assert [] == [plan for plan in plans if "Sort  (cost" in plan]


def test_take_out_that_breaks_off_is_seen_to(
    stack: Stack, large: Account, database_url: str
) -> None:
    """The account is disabled in between: no end comes, so nobody takes a part for the whole."""
    with begun(stack, large) as answer:
        stream = answer.iter_bytes()
        next(stream)
        query(database_url, "UPDATE users SET is_active = false WHERE id = :id", id=large.id)
        with pytest.raises(httpx.RemoteProtocolError):
            list(stream)
    assert "download_broken_off" in stack.running("auth")[0].output()


def test_few_take_out_at_once(stack: Stack, large: Account, database_url: str) -> None:
    """Nobody twice, and not many together; whoever goes away makes room."""
    second, third = stack.account(), stack.account()
    query(database_url, HISTORY, user=second.id, count=LARGE, pad=1500)
    with begun(stack, large):
        again = stack.get(EXPORT, large)
        assert (429, True) == (again.status_code, "retry-after" in again.headers)
        with begun(stack, second) as answer:
            assert 200 == answer.status_code
            assert 429 == stack.get(EXPORT, third).status_code
    until(lambda: stack.get(EXPORT, third).status_code == 200, timeout=10)


def test_without_postgres_no_document_is_begun() -> None:
    """What can be known before the first byte is a 503 and not a 200."""
    database = Database(
        SecretStr("postgresql+psycopg2://nobody@127.0.0.1:1/none"), pool_size=1, timeout=1
    )
    with pytest.raises(Unavailable):
        asyncio.run(data_export.begin(database, uuid.uuid4()))
    database.close()
