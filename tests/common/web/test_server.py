"""The server on real sockets."""

import asyncio
import http.client
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from valence.local import ports
from valence_common.web import server

REQUESTS = 15
DELAYED_ACK_SECONDS = 0.04


def _listening_launcher_socket() -> socket.socket:
    held = ports.reserve("127.0.0.1", 0)
    held.listen()
    return held


@contextmanager
def _serving(listening: socket.socket, handled: list[float]) -> Iterator[int]:
    """Serve one route in a thread; `handled` collects the seconds between request and response."""

    async def answer(_: Request) -> PlainTextResponse:
        began = time.perf_counter()
        response = PlainTextResponse("ok")
        handled.append(time.perf_counter() - began)
        return response

    loop = asyncio.new_event_loop()
    app = Starlette(routes=[Route("/", answer)])
    task = loop.create_task(server.serve_internal(app, listening))

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        listening.close()


@pytest.mark.parametrize(
    "listen",
    [lambda: server.bind("127.0.0.1", 0), _listening_launcher_socket],
    ids=["service", "launcher"],
)
def test_kept_connection_adds_no_delay(listen: Callable[[], socket.socket]) -> None:
    """Beyond the server's own time, a response on a kept connection arrives without delay.

    The kernel's delayed ACK would add 40 ms to each response that is written in two parts.
    """
    seconds: list[float] = []
    handled: list[float] = []
    with _serving(listen(), handled) as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(REQUESTS):
            began = time.perf_counter()
            client.request("GET", "/")
            assert b"ok" == client.getresponse().read()
            seconds.append(time.perf_counter() - began)
        client.close()
    assert REQUESTS == len(handled)
    # The fastest half: a busy machine delays some requests, a delayed ACK all but the first few.
    fastest = sorted(seconds)[: REQUESTS // 2]
    assert statistics.median(fastest) - statistics.median(handled) < DELAYED_ACK_SECONDS / 2
