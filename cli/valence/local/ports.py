"""Ports: a free one for a server, and the one that the user chose."""

import errno
import socket

from valence.local.errors import LocalError


def free_port() -> int:
    """Return a loopback port that was free a moment ago; callers must be ready to retry."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def reserve(host: str, port: int) -> socket.socket:
    """Bind a port without listening yet; raise LocalError if that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As uvicorn does: connections of the last run in TIME_WAIT must not prevent a start.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, port))
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise LocalError(
                f"Port {port} on {host} is in use: choose another with PORT."
            ) from None
        raise LocalError(
            f"Port {port} on {host} cannot be used ({error.strerror}): choose another with PORT."
        ) from None
    return holder
