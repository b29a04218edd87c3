"""Taking out what is one's own: all of it, nothing of others, never a part for the whole."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import event, text
from starlette.types import Message, Scope

from support.batches import make_user
from support.rows import query
from support.stack import Account, Stack
from support.waiting import until
from valence_auth import takeout
from valence_auth.api import privacy as api
from valence_auth.schemas import privacy as schemas
from valence_common.db import Database
from valence_common.problems import TooManyRequests, Unavailable

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
    results = [{**result, "batch_id": done["task_id"]} for result in done["results"]]
    assert results == document["batch_results"]
    actions = [event["action"] for event in document["audit_events"]]
    assert {"batch.accepted", "batch.completed", "account.exported"} <= set(actions)
    assert all(event["by_you"] for event in document["audit_events"])


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
    process = psutil.Process(stack.running("auth")[0].pid)
    before = most = process.memory_info().rss
    pieces = []
    with begun(stack, account) as answer:
        for piece in answer.iter_bytes():
            pieces.append(piece)
            most = max(most, process.memory_info().rss)
    document = json.loads(b"".join(pieces))
    assert [f"text number {n}" for n in range(MANY, 0, -1)] == [
        item["text"] for item in document["history"]
    ]
    assert most - before <= MOST_GROWTH, f"grew by {(most - before) / 2**20:.1f} MiB"


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
        return [piece async for piece in await takeout.begin(database, user_id)]

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
    until(lambda: stack.get(EXPORT, third).status_code == 200, within=10)


def test_turns_are_given_back() -> None:
    """Also by whoever fails."""
    turns, users = takeout.Turns(), [uuid.uuid4() for _ in range(takeout.AT_ONCE + 1)]
    for user in users:
        with contextlib.suppress(ValueError), turns.take(user):
            raise ValueError
    with turns.take(users[0]), turns.take(users[1]):
        with pytest.raises(TooManyRequests), turns.take(users[2]):
            pass
        with pytest.raises(TooManyRequests), turns.take(users[0]):
            pass


def test_without_postgres_no_document_is_begun() -> None:
    """What can be known before the first byte is a 503 and not a 200."""
    database = Database(
        SecretStr("postgresql+psycopg2://nobody@127.0.0.1:1/none"), pool_size=1, timeout=1
    )
    with pytest.raises(Unavailable):
        asyncio.run(takeout.begin(database, uuid.uuid4()))
    database.close()


class Sent(list[Message]):
    """What a server is given to send; the client stops reading after `most` messages."""

    def __init__(self, most: int = 1_000):
        super().__init__()
        self.most = most

    async def __call__(self, message: Message) -> None:
        if len(self) >= self.most:
            await asyncio.Event().wait()
        self.append(message)

    @property
    def ended(self) -> bool:
        return self[-1]["type"] == "http.response.body" and not self[-1].get("more_body")


async def _three_pieces(error: Exception | None = None) -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"piece"
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("error", "most", "ended"),
    [(None, 1_000, True), (Unavailable("postgres"), 1_000, False), (None, 2, False)],
    ids=["whole", "Postgres goes away", "the client reads no further"],
)
def test_only_what_is_whole_has_an_end(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, most: int, ended: bool
) -> None:
    """Without its end the server hangs up; the turn is given back in any case."""
    monkeypatch.setattr(api, "PATIENCE_SECONDS", 0.2)
    sent, turn, closed = Sent(most), contextlib.ExitStack(), []
    turn.callback(closed.append, True)
    scope: Scope = {"type": "http", "asgi": {"spec_version": "2.3"}}

    async def answer() -> None:
        await api.Download(_three_pieces(error), "x.json", turn)(scope, _silence, sent)

    asyncio.run(asyncio.wait_for(answer(), 5))
    assert ended == sent.ended
    assert [True] == closed


async def _silence() -> Message:
    await asyncio.Event().wait()
    raise AssertionError
