"""Streams and WebSockets behind the launcher's port: they work, and Ctrl-C closes them."""

import json
import signal
from pathlib import Path

from websockets.sync.client import connect

from support.live import closed, events_path, read
from support.local import Local


def test_streams_and_sockets_end_with_the_launcher(tmp_path: Path) -> None:
    """Scores and progress updates pass the router; on SIGINT the socket is closed with 1012."""
    with Local(tmp_path / "home") as local:
        local.login()
        url = local.url.replace("http://", "ws://") + "/api/v1/sentiment/stream"
        task_id = local.submit(["good"])
        path = events_path(task_id)
        with local.client.stream("GET", path) as answer:
            assert "end" == list(read(answer.iter_lines()))[-1].name
        headers = {"Authorization": local.client.headers["authorization"]}
        with connect(url, additional_headers=headers, proxy=None) as socket:
            socket.send(json.dumps({"text": "good"}))
            assert "positive" == json.loads(socket.recv(10))["sentiment"]
            local.process.send_signal(signal.SIGINT)
            assert 1012 == closed(socket)
            assert 0 == local.process.wait(20)
