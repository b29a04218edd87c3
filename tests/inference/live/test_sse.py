"""Server-Sent Events: told as it changes, once, from where the client is, to the end."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import httpx
import pytest
from pydantic import SecretStr

from support import credentials
from support.live import Event, advance, events_path, following, open_streams, set_status
from support.rows import query
from support.servers import Servers
from support.stack import Account, Service
from support.waiting import until
from valence_common.db import Database
from valence_inference.live import progress
from valence_inference.live.connections import Connection
from valence_inference.live.progress import ProgressFeed, Snapshot


@pytest.fixture
def url(servers: Servers) -> str:
    return servers.postgres.url()


@pytest.fixture
def task_id(servers: Servers, user: Account) -> str:
    """A batch of five chunks that no worker takes."""
    return servers.stack.submit(user, [f"text {n}" for n in range(50)])


def test_what_changes_is_told_and_the_end_is_the_last(
    service: Service, url: str, user: Account, task_id: str
) -> None:
    """Progress each time it changed, its id from the database's state; then the task, and EOF."""
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


def test_answer_says_how_to_treat_it(service: Service, user: Account, task_id: str) -> None:
    """Not stored, not buffered by nginx, to be tried again after a second."""
    address = service.url + events_path(task_id)
    with httpx.stream("GET", address, headers=user.headers, timeout=60) as answer:
        assert "no-store" == answer.headers["cache-control"]
        assert "no" == answer.headers["x-accel-buffering"]
        assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
        lines = answer.iter_lines()
        assert "retry: 1000" == next(lines)
        assert 1 == open_streams(service, "http")


def test_who_comes_back_gets_what_is_new(
    service: Service, url: str, user: Account, task_id: str
) -> None:
    """Nothing that is known already, never without the end; and 204 once that is known."""
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
    set_status(url, task_id, "processing")  # tried again
    with following(service, task_id, user.headers, end.id) as events:
        assert "50.0.processing" == next(events).stand
        set_status(url, task_id, "completed")
        assert "end" == next(events).name


def test_a_run_that_ends_as_the_one_before_is_told(
    service: Service, url: str, user: Account, task_id: str
) -> None:
    """Who knows the end of a run that was tried again meanwhile hears of the end of the next."""
    advance(url, task_id, 5, status="completed_with_errors")
    with following(service, task_id, user.headers) as events:
        [known] = events
    anew = "UPDATE batches SET started_at = started_at + interval '1 s' WHERE id = :id"
    query(url, anew, id=task_id)
    with following(service, task_id, user.headers, known.id) as events:
        [end] = events
    assert ("end", known.stand) == (end.name, end.stand)
    assert known.id != end.id


def test_a_deleted_batch_ends_its_streams(
    service: Service, url: str, user: Account, task_id: str
) -> None:
    """Without an end to tell; who asks again is told that there is no such task."""
    with following(service, task_id, user.headers) as events:
        next(events)
        query(url, "UPDATE batches SET deleted_at = now() WHERE id = :id", id=task_id)
        assert [] == list(events)
    assert 404 == httpx.get(service.url + events_path(task_id), headers=user.headers).status_code


def test_strangers_are_refused_before_a_stream_begins(
    servers: Servers, service: Service, user: Account, task_id: str
) -> None:
    """A foreign task is an unknown one; without a credential, or its scope, there is none."""
    stranger = servers.stack.account()
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
    narrow = credentials.key(servers.stack, user, ["analyze"])
    assert 403 == httpx.get(address, headers=narrow).status_code
    both = credentials.key(servers.stack, user, ["batch"]) | user.headers
    assert 401 == httpx.get(address, headers=both).status_code
    assert 422 == httpx.get(service.url + events_path("x"), headers=user.headers).status_code


@pytest.fixture(scope="module")
def narrow(servers: Servers) -> Iterator[Service]:
    """A replica that keeps few streams open."""
    service = servers.stack.start("inference", max_streams=3, max_user_streams=2)
    yield service
    service.stop()


def test_streams_are_bounded(
    servers: Servers, narrow: Service, user: Account, task_id: str
) -> None:
    """So many of one user, so many of all; who closes one makes room."""
    other = servers.stack.account()
    others = servers.stack.submit(other, ["good"])
    last = servers.stack.account()
    lasts = servers.stack.submit(last, ["good"])
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


def test_postgres_may_go_and_come_back(
    servers: Servers, service: Service, url: str, user: Account, task_id: str
) -> None:
    """An outage ends no stream: it goes on on the same connection, up to the end."""
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


def test_silence_is_filled_with_comments(
    servers: Servers, user: Account, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream with nothing to tell sends a comment now and then, so that nobody cuts it."""
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.01)

    async def silent() -> list[bytes]:
        database = Database(SecretStr(servers.postgres.url()), pool_size=1, timeout=5)
        watched = ProgressFeed(database)
        stream = Connection(SimpleNamespace(), SimpleNamespace())
        point = Snapshot("processing", None, 50, 10, 0, 1.0)
        events = watched.events(stream, user.id, point, point.id)
        parts = [await anext(events) for _ in range(3)]
        await events.aclose()
        database.close()
        return parts

    assert [b"retry: 1000\n\n", *itertools.repeat(b": ping\n\n", 2)] == asyncio.run(silent())


def test_an_older_look_is_no_news(
    servers: Servers, url: str, user: Account, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who joins others that watch is not told what was seen before they came."""
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.01)

    async def joined() -> list[bytes]:
        database = Database(SecretStr(url), pool_size=1, timeout=20)
        watched = ProgressFeed(database)

        async def come(last_id: str | None) -> AsyncIterator[bytes]:
            point = await watched.snapshot(uuid.UUID(user.id), uuid.UUID(task_id))
            stream = Connection(SimpleNamespace(), SimpleNamespace())
            return watched.events(stream, uuid.UUID(task_id), point, last_id)

        first = await come(None)
        assert b"id: 0.0.pending" in [await anext(first) for _ in range(2)][1]
        await asyncio.to_thread(advance, url, task_id)
        await watched._poll()
        assert b"id: 10.0.processing" in await anext(first)
        await asyncio.to_thread(advance, url, task_id)
        now = await watched.snapshot(uuid.UUID(user.id), uuid.UUID(task_id))
        second = await come(now.id)
        told = [await anext(second) for _ in range(3)]
        await watched._poll()
        assert b"id: 20.0.processing" in await anext(first)
        told.append(await anext(second))
        for events in (first, second):
            await events.aclose()
        database.close()
        return told

    assert [b"retry: 1000\n\n", *itertools.repeat(b": ping\n\n", 3)] == asyncio.run(joined())
