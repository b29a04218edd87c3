"""Ports for the servers of tests."""

import contextlib
import random
import socket


def own_port() -> int:
    """Return a free port below those that the system hands out.

    No outgoing connection takes it before its server starts, nor while its server is down.
    """
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
