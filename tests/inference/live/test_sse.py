"""Server-Sent Events: each change once, from where the client left off, to the end."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncGenerator, Iterator
from types import SimpleNamespace

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import event

from support import credentials
from support.live import Event, advance, events_path, following, open_streams, set_status
from support.rows import query
from support.servers import Servers
from support.stack import Account, Service, Stack
from support.waiting import until
from valence_common.db import Database
from valence_inference.api.sse import format_events
from valence_inference.live import progress
from valence_inference.live.connections import Connection
from valence_inference.live.progress import HEARTBEAT, ProgressFeed, Snapshot, Update


@pytest.fixture
def url(web: Stack) -> str:
    return web.database_url


@pytest.fixture
def task_id(web: Stack, user: Account) -> str:
    """A batch of five chunks that no worker takes."""
    return web.submit(user, [f"text {n}" for n in range(50)])


def test_each_change_is_sent_and_the_end_is_the_last(
    service: Service, url: str, user: Account, task_id: str
) -> None:
    """Progress after each change, with an id from the database's state; then the task, and EOF."""
    with following(service, task_id, user.headers) as events:
        first = next(events)
        assert Event("progress", "0.0.pending.0", first.data) == first
        advance(url, task_id)
        second = next(events)
        assert ("progress", "10.0.processing") == (second.name, second.stand)
        known = {"status": "processing", "total": 50, "done": 10, "failed": 0, "progress": 0.2}
        assert known == {name: second.data[name] for name in known}
        assert second.data["rate"] > 0
        assert second.data["eta_seconds"] > 0
        advance(url, task_id, 4, status="completed")
        last = next(events)
        assert ("end", "50.0.completed", task_id) == (last.name, last.stand, last.data["task_id"])
        assert "results" not in last.data
        assert [] == list(events)
    until(lambda: open_streams(service, "http") == 0, timeout=10)


def test_headers_and_retry(service: Service, user: Account, task_id: str) -> None:
    """Caches do not store it, nginx does not buffer it, and clients reconnect after a second."""
    address = service.url + events_path(task_id)
    with httpx.stream("GET", address, headers=user.headers, timeout=60) as answer:
        assert "no-store" == answer.headers["cache-control"]
        assert "no" == answer.headers["x-accel-buffering"]
        assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
        lines = answer.iter_lines()
        assert "retry: 1000" == next(lines)
        assert 1 == open_streams(service, "http")


def test_a_client_that_reconnects_gets_what_is_new(
    service: Service, url: str, user: Account, task_id: str
) -> None:
    """Nothing that it has received, always the end, and 204 once it has received the end."""
    advance(url, task_id)
    with following(service, task_id, user.headers) as events:
        known = next(events).id
    with following(service, task_id, user.headers, known) as events:
        advance(url, task_id)
        assert "20.0.processing" == next(events).stand
    advance(url, task_id, 3, status="completed")
    for last_id in (known, "", "nonsense", "20.0.processing", "50.0.completed"):
        with following(service, task_id, user.headers, last_id) as events:
            [end] = events
            assert ("end", "50.0.completed") == (end.name, end.stand)
    again = user.headers | {"Last-Event-ID": end.id}
    answer = httpx.get(service.url + events_path(task_id), headers=again)
    assert (204, b"") == (answer.status_code, answer.content)
    set_status(url, task_id, "processing")  # as a retry does
    with following(service, task_id, user.headers, end.id) as events:
        assert "50.0.processing" == next(events).stand
        set_status(url, task_id, "completed")
        assert "end" == next(events).name


def test_a_retry_that_ends_as_before_has_an_end_of_its_own(
    service: Service, url: str, user: Account, task_id: str
) -> None:
    """A client that has received the end of the first run receives the end of the second."""
    advance(url, task_id, 5, status="completed_with_errors")
    with following(service, task_id, user.headers) as events:
        [known] = events
    restart = "UPDATE batches SET started_at = started_at + interval '1 s' WHERE id = :id"
    query(url, restart, id=task_id)
    with following(service, task_id, user.headers, known.id) as events:
        [end] = events
    assert ("end", known.stand) == (end.name, end.stand)
    assert known.id != end.id


def test_a_deleted_batch_ends_its_streams(
    service: Service, url: str, user: Account, task_id: str
) -> None:
    """Without an `end` event; the next request gets 404."""
    with following(service, task_id, user.headers) as events:
        next(events)
        query(url, "UPDATE batches SET deleted_at = now() WHERE id = :id", id=task_id)
        assert [] == list(events)
    assert 404 == httpx.get(service.url + events_path(task_id), headers=user.headers).status_code


def test_requests_without_access_are_rejected(
    web: Stack, service: Service, user: Account, task_id: str
) -> None:
    """A foreign task is answered like an unknown one; a credential with the scope is required."""
    stranger = web.account()
    unknown = "01a1fe96-fd7e-7565-8ebe-ad96f1cb2dc6"
    answers = [
        httpx.get(service.url + events_path(each), headers=stranger.headers)
        for each in (task_id, unknown)
    ]
    documents = [a.json() | {"request_id": ""} for a in answers]
    assert documents[0] == documents[1]
    assert (404, "Task not found") == (documents[0]["status"], documents[0]["detail"])
    address = service.url + events_path(task_id)
    assert 401 == httpx.get(address).status_code
    narrow = credentials.key(web, user, ["analyze"])
    assert 403 == httpx.get(address, headers=narrow).status_code
    both = credentials.key(web, user, ["batch"]) | user.headers
    assert 401 == httpx.get(address, headers=both).status_code
    assert 422 == httpx.get(service.url + events_path("x"), headers=user.headers).status_code


@pytest.fixture(scope="module")
def narrow(shared_web: Stack) -> Iterator[Service]:
    """A replica that allows few open streams."""
    service = shared_web.start("inference", max_streams=3, max_user_streams=2)
    yield service
    service.stop()


def test_streams_are_bounded(web: Stack, narrow: Service, user: Account, task_id: str) -> None:
    """Limited per user and in total; closing one frees its place."""
    other = web.account()
    others = web.submit(other, ["good"])
    last = web.account()
    lasts = web.submit(last, ["good"])
    with contextlib.ExitStack() as exits:
        for _ in range(2):
            exits.enter_context(following(narrow, task_id, user.headers))
        answer = httpx.get(narrow.url + events_path(task_id), headers=user.headers)
        assert 429 == answer.status_code
        assert int(answer.headers["retry-after"]) > 0
        exits.enter_context(following(narrow, others, other.headers))
        answer = httpx.get(narrow.url + events_path(lasts), headers=last.headers)
        assert 429 == answer.status_code
    until(lambda: open_streams(narrow, "http") == 0, timeout=10)
    with following(narrow, task_id, user.headers) as events:
        assert "progress" == next(events).name


@pytest.mark.faults
def test_streams_survive_an_outage_of_postgres(
    servers: Servers, web: Stack, service: Service, url: str, user: Account, task_id: str
) -> None:
    """An outage ends no stream: it continues on the same connection, to the end."""
    with following(service, task_id, user.headers) as events:
        assert "0.0.pending" == next(events).stand
        servers.postgres.kill()
        answer = httpx.get(service.url + events_path(task_id), headers=user.headers, timeout=20)
        assert 503 == answer.status_code
        servers.postgres.start()
        advance(url, task_id)
        assert "10.0.processing" == next(events).stand
        advance(url, task_id, 4, status="completed")
        assert "end" == next(events).name


def _connection() -> Connection:
    return Connection(SimpleNamespace(), SimpleNamespace())


def test_a_quiet_stream_sends_comments(
    web: Stack, user: Account, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an update a comment is sent now and then, so that no proxy closes the stream."""
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.01)

    async def stream() -> list[bytes]:
        database = Database(SecretStr(web.database_url), pool_size=1, timeout=5)
        snapshot = Snapshot("processing", None, 50, 10, 0, 1.0)
        feed = ProgressFeed(database)
        updates = feed.updates(_connection(), uuid.UUID(task_id), snapshot, snapshot.id)
        events = format_events(updates)
        parts = [await anext(events) for _ in range(3)]
        await events.aclose()
        database.close()
        return parts

    assert [b"retry: 1000\n\n", *itertools.repeat(b": ping\n\n", 2)] == asyncio.run(stream())


def test_a_poll_from_before_the_subscription_is_no_update(
    web: Stack, url: str, user: Account, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that joins a subscribed batch gets nothing older than its first snapshot."""
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.01)

    async def subscribe_twice() -> list[Update]:
        database = Database(SecretStr(url), pool_size=1, timeout=20)
        feed = ProgressFeed(database)

        async def subscribe(last_id: str | None) -> AsyncGenerator[Update, None]:
            snapshot = await feed.snapshot(uuid.UUID(user.id), uuid.UUID(task_id))
            return feed.updates(_connection(), uuid.UUID(task_id), snapshot, last_id)

        async def next_id(updates: AsyncGenerator[Update, None]) -> str:
            return (await anext(updates)).id.rpartition(".")[0]

        first = await subscribe(None)
        assert "0.0.pending" == await next_id(first)
        await asyncio.to_thread(advance, url, task_id)
        await feed._poll()
        assert "10.0.processing" == await next_id(first)
        await asyncio.to_thread(advance, url, task_id)
        current = await feed.snapshot(uuid.UUID(user.id), uuid.UUID(task_id))
        second = await subscribe(current.id)
        updates = [await anext(second) for _ in range(2)]
        await feed._poll()
        assert "20.0.processing" == await next_id(first)
        updates.append(await anext(second))
        for subscription in (first, second):
            await subscription.aclose()
        database.close()
        return updates

    assert [HEARTBEAT] * 3 == asyncio.run(subscribe_twice())


def test_ten_subscriptions_cost_the_queries_of_one(
    web: Stack, url: str, user: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets every change, and a poll asks as much for ten of two batches as for one."""
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.02)

    async def queries_a_poll(subscriptions: int) -> float:
        texts = [f"text {n}" for n in range(50)]
        task_ids = [
            await asyncio.to_thread(web.submit, user, texts) for _ in range(min(subscriptions, 2))
        ]
        database = Database(SecretStr(url), pool_size=2, timeout=20)
        statements, polls = [], []
        event.listen(database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
        feed = ProgressFeed(database)
        poll = feed._poll

        async def counted_poll() -> None:
            polls.append(len(statements))
            await poll()

        monkeypatch.setattr(feed, "_poll", counted_poll)
        known = Snapshot("pending", None, 50, 0, 0, None)
        async with feed.lifespan():
            updates = [
                feed.updates(_connection(), uuid.UUID(task_id), known, known.id)
                for task_id in itertools.islice(itertools.cycle(task_ids), subscriptions)
            ]
            for done in (10, 20, 30):
                changes = asyncio.gather(*map(anext, updates))
                for task_id in task_ids:
                    await asyncio.to_thread(advance, url, task_id)
                assert [done] * subscriptions == [update.done for update in await changes]
            whole = len(polls)
            while len(polls) == whole:
                await asyncio.sleep(0.01)
            for each in updates:
                await each.aclose()
        await asyncio.to_thread(database.close)
        return polls[whole] / whole

    assert asyncio.run(queries_a_poll(1)) == asyncio.run(queries_a_poll(10)) > 0
