"""The shared instruments see what they are for: each fails where it must."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.probes import probed
from support.stack import Service
from support.waiting import until


class Livez(BaseHTTPRequestHandler):
    """Answers with each of the server's answers (status, delay) in turn."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, delay = self.server.answers.pop(0)
        self.server.answers.append((status, delay))
        time.sleep(delay)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Livez)
    server.answers, server.daemon_threads = [(200, 0)], True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def service(server: ThreadingHTTPServer) -> Service:
    process = SimpleNamespace(pid=1, poll=lambda: None)
    return Service("web", process, "", f"http://127.0.0.1:{server.server_port}", Path("none"))


def test_probes_pass_where_all_is_well(service: Service) -> None:
    """The control: so it is the fault that the others fail for."""
    with probed([service], limit=10) as times:
        until(lambda: len(times) > 3, timeout=10)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [((503, 0), "503 after"), ((200, 1.5), "200 after 1")],
    ids=["sick", "slow"],
)
def test_probes_see_one_bad_answer(
    server: ThreadingHTTPServer, service: Service, answer: tuple[int, float], complaint: str
) -> None:
    """Among good ones; the block fails."""
    server.answers.append(answer)
    with pytest.raises(AssertionError, match=complaint), probed([service]) as times:
        until(lambda: len(times) > 1, timeout=10)


def test_probes_see_a_service_that_refuses(server: ThreadingHTTPServer, service: Service) -> None:
    """So does a connection that nothing takes."""
    server.shutdown()
    server.server_close()
    with pytest.raises(AssertionError, match="ConnectionRefusedError"), probed([service]):
        pass
