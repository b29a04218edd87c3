"""Live channels through the ingress: nothing is held back, and another pod goes on."""

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
    """An API key: what a program would use."""
    body = {"name": "e2e", "scopes": ["analyze", "batch"]}
    answer = user.client.post("/api/v1/api-keys", json=body, headers=user.headers)
    assert answer.status_code == 201
    return {"X-API-Key": answer.json()["key"]}


@contextlib.contextmanager
def _following(headers: dict[str, str], task: str) -> Iterator[Iterator[Event]]:
    """Events through the edge as they come."""
    with edge() as client, client.stream("GET", events_path(task), headers=headers) as answer:
        assert answer.status_code == 200
        yield read(answer.iter_lines())


def _websocket(headers: dict[str, str] | None = None, **more: object) -> ClientConnection:
    """A WebSocket through the edge, which is on this machine whatever its name."""
    url = f"wss://{HOST}/api/v1/sentiment/stream"
    here = socket.create_connection(("127.0.0.1", 443), 20)
    return connect(url, sock=here, ssl=trust(), additional_headers=headers, proxy=None, **more)


def test_events_arrive_as_they_happen(user: User) -> None:
    """The first progress is there long before the end: nginx buffers nothing."""
    task = user.submit(["what a wonderful day"] * BATCH)
    times: list[tuple[float, Event]] = []
    with _following(user.headers, task) as events:
        times += [(time.monotonic(), event) for event in events]
    names_of = [event.name for _, event in times]
    assert names_of == ["progress"] * (len(times) - 1) + ["end"]
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


def test_events_go_on_after_their_pod_is_deleted(user: User) -> None:
    """Every pod that could have served them is killed; the client goes on where it was."""
    # A user's batches are worked on in their order: the last one takes a while to begin.
    task = [user.submit(["what a wonderful day"] * BATCH) for _ in range(3)][-1]
    seen: list[Event] = []
    with contextlib.suppress(httpx.TransportError), _following(user.headers, task) as events:
        seen.append(next(events))
        kubectl("delete", "pod", *names("inference"), "--force", "--grace-period=0")
        seen += events
    print(f"\nthe first stream told {len(seen)} events")
    assert seen[-1].name == "progress"  # cut off before the end, which is what is to be proved
    deadline = time.monotonic() + 240
    while seen[-1].name != "end":
        assert time.monotonic() < deadline
        again = user.headers | {"Last-Event-ID": seen[-1].id}
        with (
            # Until a new pod is ready, nginx answers by itself.
            contextlib.suppress(httpx.TransportError, AssertionError),
            _following(again, task) as events,
        ):
            seen += events
        time.sleep(1)
    assert len({event.id for event in seen}) == len(seen)
    done = [event.data["done"] for event in seen]
    assert done == sorted(done)
    assert done[-1] == BATCH
    until(lambda: ready("inference") >= 2, timeout=120, what="inference is whole again")


def test_a_websocket_scores(user: User) -> None:
    """With a header's credential and with a subprotocol's; nginx passes the upgrade on."""
    for headers, protocols in (
        (user.headers, None),
        (_key(user), None),
        (None, ["valence.v1", f"bearer.{user.token}"]),
    ):
        with _websocket(headers, subprotocols=protocols) as talk:
            for number in range(10):
                talk.send(json.dumps({"id": number, "text": "what a wonderful day"}))
                answer = json.loads(talk.recv(20))
                assert (answer["id"], answer["sentiment"]) == (number, "positive")
    assert user.client.get("/api/v1/sentiment/stream").status_code == 426
