"""How connections end: with their credential, with the process, or with a killed replica."""

import contextlib
import itertools
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from support import credentials, faulty_model
from support.jobs import SECONDS_A_CHUNK, Jobs
from support.live import (
    Event,
    advance,
    closed,
    following,
    refusal,
    say,
    stalled,
    websocket,
)
from support.rows import query
from support.servers import Servers
from support.stack import Account, Service, Stack
from support.tokens import Forge
from support.waiting import until

SOON = 5.0
"""Seconds after the revocation; busy machines get `SLACK` more, but in `test_the_promise…`."""

SLACK = 5.0


def _both_end(service: Service, task_id: str, headers: dict[str, str], end: object) -> float:
    """Open an event stream and a WebSocket, call `end`, and return the seconds until both ended."""
    with following(service, task_id, headers) as events, websocket(service, headers) as socket:
        next(events)
        say(socket, {"text": "good"})
        assert callable(end)
        end()
        started = time.monotonic()
        assert 4401 == closed(socket, SOON + SLACK)
        assert [] == list(events)
        seconds = time.monotonic() - started
        assert seconds < SOON + SLACK
        return seconds


def test_a_logout_ends_what_the_session_opened(web: Stack, service: Service, user: Account) -> None:
    """Event stream and WebSocket, within 5 s; those of other users stay open."""
    task_id = web.submit(user, ["good"])
    other = web.account()
    with websocket(service, other.headers) as untouched:
        logout = {"refresh_token": user.refresh_token}
        seconds = _both_end(
            service,
            task_id,
            user.headers,
            lambda: web.post("/api/v1/auth/logout", user, json=logout).raise_for_status(),
        )
        assert "sentiment" in say(untouched, {"text": "good"})
    print(f"\nlogout to the end of stream and socket: {seconds:.1f} s")
    assert 401 == refusal(service, user.headers).status_code


def test_streams_end_in_time_in_the_worst_moment(web: Stack, service: Service) -> None:
    """A session that ends just after the server has checked the credentials of connections."""
    users = [web.account() for _ in range(4)]
    with contextlib.ExitStack() as exits:
        sockets = [exits.enter_context(websocket(service, user.headers)) for user in users]
        seconds = []
        for user, socket in zip(users, sockets, strict=True):
            started = time.monotonic()
            body = {"refresh_token": user.refresh_token}
            web.post("/api/v1/auth/logout", user, json=body).raise_for_status()
            assert 4401 == closed(socket, 60)  # which tells when the server has looked
            seconds.append(time.monotonic() - started)
            # The machine may hiccup once; a server that looks too seldom is late each time.
            if len(seconds) > 1 and seconds[-1] < SOON:
                return
    raise AssertionError(f"ended after {seconds[1:]} s")


@pytest.mark.parametrize("whose", ["key", "user"])
def test_a_key_that_ends_ends_what_it_opened(
    web: Stack, service: Service, user: Account, whose: str
) -> None:
    """An API key that its owner revokes, or whose account is disabled."""
    task_id = web.submit(user, ["good"])
    if whose == "key":
        body = {"name": "live", "scopes": ["analyze", "batch"]}
        made = web.post("/api/v1/api-keys", user, json=body).json()
        headers, path = {"X-API-Key": made["key"]}, f"/api/v1/api-keys/{made['id']}"

        def end() -> None:
            assert 204 == web.request("DELETE", path, headers=user.headers).status_code
    else:
        headers = credentials.key(web, user, ["analyze", "batch"])
        admin, path = credentials.admin(web), f"/api/v1/admin/users/{user.id}"

        def end() -> None:
            change = {"is_active": False}
            answer = web.request("PATCH", path, headers=admin.headers, json=change)
            assert 200 == answer.status_code

    _both_end(service, task_id, headers, end)


def test_a_token_that_expires_ends_what_it_opened(
    web: Stack, service: Service, user: Account
) -> None:
    """At its `exp` plus the leeway that every request has."""
    task_id = web.submit(user, ["good"])
    now = int(time.time())
    forge = Forge(web.keyring, user.id)
    token = forge.token(claims={"iat": now - 60, "nbf": now - 60, "exp": now - 24})
    _both_end(service, task_id, {"Authorization": f"Bearer {token}"}, lambda: None)


@pytest.mark.faults
def test_postgres_down_is_one_messages_affair(
    servers: Servers, web: Stack, service: Service, user: Account
) -> None:
    """Texts are scored; one to be recorded gets 503; the WebSocket stays open."""
    with websocket(service, user.headers) as socket:
        assert say(socket, {"text": "good", "record": True})["recorded"]
        with servers.postgres.frozen():
            assert "positive" == say(socket, {"text": "good"})["sentiment"]
            refused = say(socket, {"text": "good", "id": 1, "record": True})
            assert (1, 503, 2) == (
                refused["id"],
                refused["error"]["status"],
                refused["error"]["retry_after"],
            )
        until(lambda: say(socket, {"text": "good", "record": True}).get("recorded"), timeout=20)


@pytest.mark.faults
def test_sigterm_ends_all_promptly(web: Stack, user: Account) -> None:
    """20 streams, 20 WebSockets and one that reads nothing all end with 1012, before the drain."""
    going = web.start("inference", drain_seconds=60, max_user_streams=60)
    task_id = web.submit(user, ["good"])
    with contextlib.ExitStack() as exits:
        streams = [exits.enter_context(following(going, task_id, user.headers)) for _ in range(20)]
        for events in streams:
            next(events)
        sockets = [exits.enter_context(websocket(going, user.headers)) for _ in range(20)]
        for socket in sockets:
            say(socket, {"text": "good"})
        exits.enter_context(stalled(going, user.headers))
        started = time.monotonic()
        going.process.send_signal(signal.SIGTERM)
        # Each ends as it should, not with its connection.
        assert [[]] * 20 == [list(events) for events in streams]
        with ThreadPoolExecutor(20) as pool:
            assert [1012] * 20 == list(pool.map(closed, sockets))
        assert 0 == going.process.wait(30)  # half of what the drain may take
        print(f"\nSIGTERM to the exit: {time.monotonic() - started:.1f} s")
    assert '"unhandled"' not in going.output()
    assert "Traceback" not in going.output()


@pytest.mark.faults
def test_a_message_in_work_is_answered_before_the_end(
    servers: Servers, web: Stack, user: Account
) -> None:
    """SIGTERM while a message waits for Postgres: the reply is sent, then 1012."""
    going = web.start("inference", database_timeout_seconds=0.9)
    with websocket(going, user.headers) as socket:
        say(socket, {"text": "good"})
        with servers.postgres.frozen():
            socket.send('{"text": "good", "record": true, "id": "last"}')
            going.process.send_signal(signal.SIGTERM)
            answer = json.loads(socket.recv(20))
        assert ("last", True) == (answer["id"], "error" in answer or answer["recorded"])
        assert 1012 == closed(socket)
    assert 0 == going.process.wait(30)


@pytest.fixture
def jobs(web: Stack, tmp_path: Path) -> Iterator[Jobs]:
    """A slow worker."""
    model = faulty_model.write(tmp_path / "odd-1", seconds=SECONDS_A_CHUNK * 2)
    jobs = Jobs(web, model)
    worker = jobs.start_worker()
    yield jobs
    worker.stop()


@pytest.mark.faults
def test_events_go_on_at_another_replica(web: Stack, service: Service, jobs: Jobs) -> None:
    """Updates of a running batch: after a replica is killed, the other one sends the rest."""
    first = web.start("inference", **Jobs.web_settings)
    account, task_id, texts = jobs.submit(300)
    seen: list[Event] = []
    with (
        contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError),
        following(first, task_id, account.headers) as events,
    ):
        for event in events:
            seen.append(event)
            if len(seen) == 1:
                running = "SELECT finished_at FROM batches WHERE id = :id"
                assert [(None,)] == query(web.database_url, running, id=task_id)
            if event.data["done"] >= 20:
                first.kill()
    before = len(seen)
    assert {"progress"} == {event.name for event in seen}
    with following(service, task_id, account.headers, seen[-1].id) as events:
        seen += events
    assert len(seen) > before + 1
    done = [event.data["done"] for event in seen]
    assert all(a <= b for a, b in itertools.pairwise(done))
    assert len(seen) == len({event.id for event in seen})
    assert ("end", "300.0.completed") == (seen[-1].name, seen[-1].stand)
    assert ["progress"] * (len(seen) - 1) == [event.name for event in seen[:-1]]
    jobs.judge(account, task_id, texts)


def test_many_watch_one_batch(web: Stack, service: Service, user: Account) -> None:
    """All subscribers get every update, at one query per poll."""
    task_id = web.submit(user, [f"text {n}" for n in range(50)])
    ended: list[list[str]] = []
    ready = threading.Barrier(11, timeout=30)

    def watch() -> None:
        with following(service, task_id, user.headers) as events:
            first = next(events)
            ready.wait()
            ended.append([first.stand, *(event.stand for event in events)])

    threads = [threading.Thread(target=watch) for _ in range(10)]
    for thread in threads:
        thread.start()
    ready.wait()
    advance(web.database_url, task_id, 5, status="completed")
    for thread in threads:
        thread.join(30)
    assert [["0.0.pending", "50.0.completed"]] * 10 == ended
