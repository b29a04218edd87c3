"""Loopback ports: one that is free for a server, and the one the user asked for."""

import errno
import socket

from valence.local.errors import LocalError


def free_port() -> int:
    """A port that was free a moment ago: who starts a server on it must be ready to retry."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def reserve(host: str, port: int) -> socket.socket:
    """Hold a port without listening yet; LocalError names it when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As uvicorn does: connections that linger from the last run are no reason to refuse.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise LocalError(f"Port {port} on {host} is taken: choose another with PORT.") from None
        raise LocalError(
            f"Port {port} on {host} cannot be used ({error.strerror}): choose another with PORT."
        ) from None
    return holder
