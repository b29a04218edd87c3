"""More clients than a process has descriptors for: nobody is shut out for long, nothing floods."""

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.stack import Service, Stack
from support.waiting import until
from valence_common.web.http_protocol import BACKLOG

pytestmark = pytest.mark.faults

DESCRIPTORS = 3000
HELD = 1500


@pytest.fixture
def service(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Service]:
    """One that may have few descriptors."""
    through = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    with contextlib.closing(Stack(tmp_path, database_url, redis_url, through=through)) as stack:
        yield stack.start("auth")


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Enough for this process to hold all those clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * DESCRIPTORS)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_open(connection: socket.socket) -> bool:
    """Whether the other side has not ended it."""
    with contextlib.suppress(BlockingIOError):
        try:
            return connection.recv(1) != b""
        except ConnectionError:
            return False
    return True


@pytest.mark.usefixtures("many_descriptors")
def test_clients_beyond_all_measure_are_sent_away(service: Service) -> None:
    """Those that are too many hear so at once; probes answer, and the log stays short."""
    host, port = service.url.removeprefix("http://").split(":")
    lines = service.output().count("\n")
    held: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        for _ in range(HELD):
            connection = socket.create_connection((host, int(port)), timeout=5)
            connection.setblocking(False)
            held.append(stack.enter_context(connection))
        until(lambda: not is_open(held[-1]), timeout=5)
        assert 0 < sum(map(is_open, held)) < DESCRIPTORS - BACKLOG
        assert 200 == httpx.get(f"{service.internal_url}/livez").status_code
    until(lambda: _answers(service), timeout=5)
    assert service.output().count("\n") - lines < 10


def _answers(service: Service) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{service.url}/api/v1/users/me").status_code == 401
    return False
