"""Live channels through the ingress: without buffering, and resumed on another pod."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from support.cluster import HOST, User, edge, kubectl, names, ready, trust, until
from support.live import Event, events_path, read

pytestmark = pytest.mark.e2e

BATCH = 100_000


def _key(user: User) -> dict[str, str]:
    """Return the headers of a new API key."""
    body = {"name": "e2e", "scopes": ["analyze", "batch"]}
    answer = user.client.post("/api/v1/api-keys", json=body, headers=user.headers)
    assert answer.status_code == 201
    return {"X-API-Key": answer.json()["key"]}


@contextlib.contextmanager
def _subscribed(headers: dict[str, str], task: str) -> Iterator[Iterator[Event]]:
    """The progress updates of a batch through the ingress, as they arrive."""
    with edge() as client, client.stream("GET", events_path(task), headers=headers) as answer:
        assert answer.status_code == 200
        yield read(answer.iter_lines())


def _websocket(headers: dict[str, str] | None = None, **more: object) -> ClientConnection:
    """Open a WebSocket through the ingress on this machine."""
    url = f"wss://{HOST}/api/v1/sentiment/stream"
    sock = socket.create_connection(("127.0.0.1", 443), 20)
    return connect(url, sock=sock, ssl=trust(), additional_headers=headers, proxy=None, **more)


def test_progress_arrives_without_buffering(user: User) -> None:
    """The first progress update arrives long before the end: nginx does not buffer."""
    task = user.submit(["what a wonderful day"] * BATCH)
    times: list[tuple[float, Event]] = []
    with _subscribed(user.headers, task) as events:
        times += [(time.monotonic(), event) for event in events]
    event_names = [event.name for _, event in times]
    assert event_names == ["progress"] * (len(times) - 1) + ["end"]
    assert len(times) > 3
    first, last = times[0], times[-1]
    assert first[1].data["done"] < BATCH
    assert last[1].data["done"] == BATCH
    assert last[0] - first[0] > 1
    done = [event.data["done"] for _, event in times]
    assert done == sorted(done)
    print(f"\nSSE: {len(times)} events, the first {last[0] - first[0]:.1f} s before the end")
    again = user.headers | {"Last-Event-ID": last[1].id}
    assert user.client.get(events_path(task), headers=again).status_code == 204


def test_progress_resumes_after_its_pod_is_deleted(user: User) -> None:
    """All inference pods are killed; the client resumes from its last event id."""
    # Workers process the batches of a user in order, so the last one starts late.
    task = [user.submit(["what a wonderful day"] * BATCH) for _ in range(3)][-1]
    seen: list[Event] = []
    with contextlib.suppress(httpx.TransportError), _subscribed(user.headers, task) as events:
        seen.append(next(events))
        kubectl("delete", "pod", *names("inference"), "--force", "--grace-period=0")
        seen += events
    print(f"\nthe first stream had {len(seen)} updates")
    assert seen[-1].name == "progress"  # a control: the stream was cut before the end
    deadline = time.monotonic() + 240
    while seen[-1].name != "end":
        assert time.monotonic() < deadline
        again = user.headers | {"Last-Event-ID": seen[-1].id}
        with (
            # Until a new pod is ready, nginx answers with an error.
            contextlib.suppress(httpx.TransportError, AssertionError),
            _subscribed(again, task) as events,
        ):
            seen += events
        time.sleep(1)
    assert len({event.id for event in seen}) == len(seen)
    done = [event.data["done"] for event in seen]
    assert done == sorted(done)
    assert done[-1] == BATCH
    until(lambda: ready("inference") >= 2, timeout=120, what="inference has two ready pods")


def test_a_websocket_scores(user: User) -> None:
    """With the credential in a header or a subprotocol; nginx forwards the upgrade."""
    for headers, protocols in (
        (user.headers, None),
        (_key(user), None),
        (None, ["valence.v1", f"bearer.{user.token}"]),
    ):
        with _websocket(headers, subprotocols=protocols) as websocket:
            for number in range(10):
                websocket.send(json.dumps({"id": number, "text": "what a wonderful day"}))
                answer = json.loads(websocket.recv(20))
                assert (answer["id"], answer["sentiment"]) == (number, "positive")
    assert user.client.get("/api/v1/sentiment/stream").status_code == 426
