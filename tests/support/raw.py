"""HTTP as bytes on a socket, for what a client library would never send."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class Answer:
    """One HTTP answer, split."""

    status: int
    headers: dict[str, str]
    body: bytes


def message(method: str, path: str, *fields: bytes, body: bytes = b"", close: bool = True) -> bytes:
    """A request with a Host, the given header fields and, by default, `Connection: close`."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", *fields]
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def connect(url: str, timeout: float = 20) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout)


def half_sent(url: str, path: str, *fields: bytes, body: bytes) -> tuple[socket.socket, bytes]:
    """A POST whose body has half arrived; returns its connection and the rest."""
    length = b"Content-Length: %d" % len(body)
    data = message("POST", path, *fields, length, body=body, close=False)
    connection = connect(url)
    middle = len(data) - len(body) // 2
    connection.sendall(data[:middle])
    return connection, data[middle:]


def exchange(url: str, data: bytes, *, timeout: float = 20) -> list[Answer]:
    """Send the bytes and read answers until the server closes or is silent for `timeout`."""
    with connect(url, timeout) as connection:
        # Refused before the end: the answer is there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        return answers(connection)


def answers(connection: socket.socket) -> list[Answer]:
    """Read answers until the server closes or is silent for the socket's timeout."""
    received = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return list(_split(received))


def _split(received: bytes) -> Iterator[Answer]:
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = int(headers.get("content-length", 0))
        yield Answer(int(lines[0].split()[1]), headers, rest[:length])
        received = rest[length:]
