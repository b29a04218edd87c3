"""The server: uvicorn with a public and an internal port, signals, and a drain with a timeout.

Both ports run in one event loop, so that `/livez` checks it. The internal port answers until the
public one has drained.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from valence_common.web import http_protocol, websocket

CUT_OFF_SECONDS = 5.0  # for what a request still does once the drain has timed out
PING_SECONDS = 20.0  # between pings of a WebSocket, and until a pong must have come
KEEP_ALIVE_SECONDS = 75  # longer than nginx (60 s), so it never reuses a closed connection


class ServeError(Exception):
    """The process cannot listen; the message is one sentence for its operator."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: `serve` handles signals for both ports."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address; raise `ServeError` when it is in use or not local."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=http_protocol.BACKLOG)
    except OSError as error:
        raise ServeError(f"cannot listen on {host}:{port}: {error.strerror}") from None


async def serve(
    app: ASGIApp,
    internal: ASGIApp,
    *,
    lifespan: Callable[[], AbstractAsyncContextManager[Any]],
    public_socket: socket.socket,
    internal_socket: socket.socket,
    drain_seconds: int,
    message_bytes: int = 0,
    on_started: Callable[[], None] = lambda: None,
    on_stopping: Callable[[], None] = lambda: None,
) -> None:
    """Serve both ports until SIGTERM or SIGINT, then drain; a second signal ends at once.

    `lifespan` is entered before a port answers and left after both are closed; its errors are
    raised as they are. `message_bytes` limits a WebSocket message; 0 disables WebSockets.
    `on_stopping` is called on the first signal, so that open streams can close.
    """
    public = _Server(_config(app, drain_seconds, message_bytes))
    inner = _Server(_config(internal, 1))
    with _signals(public, on_stopping):
        async with lifespan():
            inner_task = asyncio.create_task(inner.serve(sockets=[internal_socket]))
            public_task = asyncio.create_task(public.serve(sockets=[public_socket]))
            while not public.started and not public_task.done():
                await asyncio.sleep(0.01)
            structlog.get_logger().info("listening", port=public_socket.getsockname()[1])
            on_started()
            await public_task
            await _finish(public)
            inner.should_exit = True
            await inner_task


async def _finish(server: uvicorn.Server) -> None:
    """Wait for cancelled requests: each still sends a response, and one may be committing."""
    tasks = set(server.server_state.tasks)
    if server.force_exit:  # uvicorn left them running
        for task in tasks:
            task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CUT_OFF_SECONDS)


async def serve_internal(app: ASGIApp, listening: socket.socket) -> None:
    """Serve only the internal port, in a thread's own event loop, until the process ends."""
    await _Server(_config(app, 1)).serve(sockets=[listening])


def _config(app: ASGIApp, drain_seconds: int, message_bytes: int = 0) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=http_protocol.HardenedHttpProtocol,
        ws=websocket.HardenedWebSocketProtocol if message_bytes else "none",
        ws_max_size=message_bytes,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
    )


@contextlib.contextmanager
def _signals(server: uvicorn.Server, on_stopping: Callable[[], None]) -> Iterator[None]:
    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True
        on_stopping()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
