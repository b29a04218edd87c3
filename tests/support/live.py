"""Event streams and WebSockets as their clients see them, and batches moved on by hand."""

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from support.rows import query
from support.stack import Service

STREAM = "/api/v1/sentiment/stream"


@dataclass
class Event:
    """One event, taken apart."""

    name: str
    id: str
    data: dict[str, Any]

    @property
    def stand(self) -> str:
        """What its id says of the batch, without the time at which the run began."""
        return self.id.rpartition(".")[0]


def events_path(task_id: str) -> str:
    return f"/api/v1/sentiment/task/{task_id}/events"


@contextlib.contextmanager
def following(
    service: Service, task_id: str, headers: dict[str, str], last_id: str | None = None
) -> Iterator[Iterator[Event]]:
    """The events of a batch as they come, until the server ends the stream."""
    if last_id is not None:
        headers = headers | {"Last-Event-ID": last_id}
    url = service.url + events_path(task_id)
    with (
        httpx.Client(trust_env=False, timeout=60) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        assert (200, "text/event-stream") == (
            answer.status_code,
            answer.headers["content-type"].partition(";")[0],
        )
        yield read(answer.iter_lines())


def read(lines: Iterable[str]) -> Iterator[Event]:
    """Events out of lines (HTML, section 9.2.6), without comments."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


_SET_STATUS = (
    "UPDATE batches SET status = :status, started_at = coalesce(started_at, now()) WHERE id = :id"
)


def advance(url: str, task_id: str, chunks: int = 1, *, status: str = "processing") -> None:
    """Let so many more chunks of a batch be done, as a worker does it, after it has begun."""
    query(
        url,
        # One statement: nobody sees the chunks done and the status of before.
        "WITH done AS (UPDATE batch_chunks SET state = 'done', done_at = now() + interval '1 s'"
        " WHERE id IN (SELECT id FROM batch_chunks"
        f" WHERE batch_id = :id AND state = 'pending' ORDER BY start LIMIT :chunks)) {_SET_STATUS}",
        id=task_id,
        chunks=chunks,
        status=status,
    )


def set_status(url: str, task_id: str, status: str) -> None:
    """Let a batch be in this state."""
    query(url, _SET_STATUS, id=task_id, status=status)


def websocket(service: Service, headers: dict[str, str] | None = None, **more: Any) -> Any:
    """A connection of the `websockets` client; raises `InvalidStatus` when it is refused."""
    url = service.url.replace("http://", "ws://") + more.pop("path", STREAM)
    return connect(url, additional_headers=headers, proxy=None, open_timeout=30, **more)


def refusal(service: Service, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    """What a WebSocket that must not be accepted is answered instead."""
    try:
        with websocket(service, headers, **more):
            raise AssertionError("accepted")
    except InvalidStatus as error:
        answer = error.response
    assert answer.headers["content-type"] == "application/problem+json"
    return httpx.Response(
        answer.status_code, headers=list(answer.headers.raw_items()), content=bytes(answer.body)
    )


def say(connection: ClientConnection, message: Any) -> dict[str, Any]:
    """Send a message (a string as it is) and read its answer."""
    connection.send(message if isinstance(message, str) else json.dumps(message))
    return dict(json.loads(connection.recv(timeout=30)))


def closed(connection: ClientConnection, timeout: float = 30) -> int | None:
    """The code that the server closes with; what came before is read over."""
    try:
        while True:
            connection.recv(timeout=timeout)
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else None


KEY = b"Sec-WebSocket-Key: " + b"dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", KEY)


def frame(data: bytes, *, opcode: int = 1, final: bool = True, masked: bool = True) -> bytes:
    """A frame as a client sends it (RFC 6455, section 5.2)."""
    head = bytes([opcode | (0x80 if final else 0)])
    mask = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([len(data) | mask])
    elif len(data) < 65536:
        head += struct.pack("!BH", 126 | mask, len(data))
    else:
        head += struct.pack("!BQ", 127 | mask, len(data))
    if not masked:
        return head + data
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[n % 4] for n, byte in enumerate(data))


def raw_websocket(service: Service, headers: dict[str, str]) -> socket.socket:
    """A connection that was accepted, without a library around it."""
    parts = urlsplit(service.url)
    connection = socket.create_connection((parts.hostname, parts.port), 30)
    fields = [f"{name}: {value}".encode() for name, value in headers.items()]
    head = b"\r\n".join([f"GET {STREAM} HTTP/1.1".encode(), b"Host: localhost", *HANDSHAKE])
    connection.sendall(b"\r\n".join([head, *fields]) + b"\r\n\r\n")
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1)
    assert received.startswith(b"HTTP/1.1 101")
    return connection


@contextlib.contextmanager
def stalled(service: Service, headers: dict[str, str]) -> Iterator[None]:
    """A socket whose client asks for much and reads nothing, until it may not send any more."""
    words = (Path(__file__).parents[1] / "data/sample.tsv").read_text("utf-8")
    message = frame(json.dumps({"text": words[:10_000], "explain": True}).encode())
    with raw_websocket(service, headers) as connection:
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                connection.sendall(message)
        yield


def open_streams(service: Service, kind: str) -> float:
    """How many streams of a kind (`http`, `websocket`) a service has open."""
    metrics = httpx.get(f"{service.internal_url}/metrics").text.splitlines()
    lines = [line for line in metrics if line.startswith(f'valence_streams_open{{kind="{kind}"}}')]
    return float(lines[0].split()[1]) if lines else 0
