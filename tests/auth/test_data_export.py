"""The data export: complete, of one user only, and never a part presented as the whole."""

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
from valence_common.db import Database, new_id
from valence_common.problems import Unavailable

EXPORT = "/api/v1/users/me/export"
HOOK = "https://example.com/hook"
MANY, LARGE = 60_000, 20_000
MAX_GROWTH = 8 * 1024 * 1024

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
def started(stack: Stack, account: Account) -> Iterator[httpx.Response]:
    """A data export of which only the first bytes are read; it exceeds the sockets' buffers."""
    with (
        httpx.Client(trust_env=False, timeout=30) as client,
        client.stream("GET", stack.url(EXPORT), headers=account.headers) as answer,
    ):
        yield answer


@pytest.fixture
def large(stack: Stack, database_url: str) -> Account:
    """An account whose export is far larger than all buffers."""
    account = stack.account()
    query(database_url, HISTORY, user=account.id, count=LARGE, pad=1500)
    return account


def test_export_contains_everything(stack: Stack, account: Account, database_url: str) -> None:
    """Profile, sessions, history, batches with texts and results, and audit entries."""
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
    schemas.DataExport.model_validate_json(json.dumps(document).replace("text_sha256", "text_hash"))
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


def test_export_contains_the_rows_of_files(
    stack: Stack, account: Account, database_url: str
) -> None:
    """The other cells of the rows, and the column names."""
    file = {"columns": ["id", "text"], "text_column": 1, "format": "csv"}
    stored(database_url, account.id, ["a", "b"], rows=[["x"], ["y"]], **file)
    document = export(stack, account)
    [batch] = document["batches"]
    assert file == {name: batch[name] for name in file}
    assert [["x"], ["y"]] == [result["cells"] for result in document["batch_results"]]


def test_export_is_a_file_without_secrets(stack: Stack, account: Account) -> None:
    """Browsers save it; it contains neither hashes nor tokens."""
    answer = stack.get(EXPORT, account)
    assert 'attachment; filename="valence.json"' == answer.headers["content-disposition"]
    assert "application/json" == answer.headers["content-type"]
    assert "no-store" == answer.headers["cache-control"]
    for secret in ("argon2", 'hash"', account.token, account.refresh_token):
        assert secret not in answer.text


def test_export_contains_nothing_of_others(stack: Stack, account: Account) -> None:
    """Two accounts with the same kinds of data: no id of one is in the other's export."""
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


def test_export_of_a_long_history_needs_little_memory(
    stack: Stack, account: Account, database_url: str
) -> None:
    """Every row is there, in order, and the process has hardly grown."""
    query(database_url, HISTORY, user=account.id, count=MANY, pad=0)
    export(stack, stack.account())
    pid = stack.running("auth")[0].pid
    before, pieces = forget_peak(pid), []
    with started(stack, account) as answer:
        pieces.extend(answer.iter_bytes())
    grown = peak_bytes(pid) - before
    document = json.loads(b"".join(pieces))
    assert [f"text number {n}" for n in range(MANY, 0, -1)] == [
        item["text"] for item in document["history"]
    ]
    assert grown <= MAX_GROWTH, f"grew by {grown / 2**20:.1f} MiB"


def test_history_is_read_by_its_index(database_url: str) -> None:
    """Also without statistics; otherwise each page costs as much as all of them."""
    database = Database(SecretStr(database_url), pool_size=1, timeout=20)
    with database.transaction() as session:
        user_id = make_user(session)
        session.execute(text(HISTORY), {"user": user_id, "count": 5_000, "pad": 0})
    plans: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "FROM predictions" in statement:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(line for (line,) in cursor))

    async def export_all() -> list[bytes]:
        return [piece async for piece in await data_export.start(database, user_id)]

    event.listen(database.engine, "before_cursor_execute", explain)
    asyncio.run(export_all())
    database.close()
    assert 11 == len(plans)
    assert [] == [plan for plan in plans if "Sort  (cost" in plan]


def test_export_of_a_disabled_account_is_cut_off(
    stack: Stack, large: Account, database_url: str
) -> None:
    """The account is disabled meanwhile, so the document has no end."""
    with started(stack, large) as answer:
        stream = answer.iter_bytes()
        next(stream)
        query(database_url, "UPDATE users SET is_active = false WHERE id = :id", id=large.id)
        with pytest.raises(httpx.RemoteProtocolError):
            list(stream)
    assert "download_broken_off" in stack.running("auth")[0].output()


def test_concurrent_exports_are_limited(stack: Stack, large: Account, database_url: str) -> None:
    """One for each user and two in all; a client that disconnects frees its slot."""
    second, third = stack.account(), stack.account()
    query(database_url, HISTORY, user=second.id, count=LARGE, pad=1500)
    with started(stack, large):
        again = stack.get(EXPORT, large)
        assert (429, True) == (again.status_code, "retry-after" in again.headers)
        with started(stack, second) as answer:
            assert 200 == answer.status_code
            assert 429 == stack.get(EXPORT, third).status_code
    until(lambda: stack.get(EXPORT, third).status_code == 200, timeout=10)


def test_export_without_postgres_is_503() -> None:
    """An error before the first byte is a 503, not an incomplete 200."""
    database = Database(
        SecretStr("postgresql+psycopg2://nobody@127.0.0.1:1/none"), pool_size=1, timeout=1
    )
    with pytest.raises(Unavailable):
        asyncio.run(data_export.start(database, uuid.uuid4()))
    database.close()


def test_export_contains_webhooks(stack: Stack, account: Account, database_url: str) -> None:
    """The user's deliveries and the ids of their secrets; the URL is in the batch."""
    ids = {}
    for owner in (account, stack.account()):
        batch, delivery, secret = stack.submit(owner, ["good"]), str(new_id()), str(new_id())
        stack.finish(owner, batch)
        query(database_url, "UPDATE batches SET webhook_url = :u WHERE id = :id", u=HOOK, id=batch)
        query(
            database_url,
            "INSERT INTO webhook_deliveries (id, batch_id, user_id, event, attempts)"
            " VALUES (:id, :batch, :user, 'batch.completed', 3)",
            id=delivery,
            batch=batch,
            user=owner.id,
        )
        query(
            database_url,
            "INSERT INTO webhook_secrets (id, user_id, secret) VALUES (:id, :user, 'whsec_hidden')",
            id=secret,
            user=owner.id,
        )
        ids[owner.id] = batch, delivery, secret
    response = stack.get(EXPORT, account)
    assert "whsec_hidden" not in response.text
    schemas.DataExport.model_validate_json(response.text.replace("text_sha256", "text_hash"))
    document = json.loads(response.text)
    batch, delivery, secret = ids[account.id]
    assert [(batch, HOOK)] == [(b["id"], b["webhook_url"]) for b in document["batches"]]
    assert [(delivery, batch, "batch.completed", "pending", 3)] == [
        tuple(d[name] for name in ("id", "batch_id", "event", "status", "attempts"))
        for d in document["webhook_deliveries"]
    ]
    assert [secret] == [each["id"] for each in document["webhook_secrets"]]
