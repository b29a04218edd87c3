"""A private Valkey (or Redis) on a free loopback port, with a password."""

import os
import secrets
import socket
from pathlib import Path
from typing import Self

from valence.local.binaries import find_valkey
from valence.local.errors import LocalError
from valence.local.ports import free_port
from valence.local.processes import Child, write_private


class Valkey:
    """The server of one folder; with `persistent`, an append-only file is synced every second.

    Like `Postgres`, the server ends with the process, and with the thread, that started it.
    """

    def __init__(self, folder: Path, *, persistent: bool = False, log: Path | None = None) -> None:
        self.folder = folder.absolute()
        self.port = 0
        self._persistent = persistent
        self._password = ""
        self._child = Child(
            "Valkey",
            record=self.folder / "server.json",
            log=log or self.folder / "server.log",
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process ID."""
        return self._child.pid

    def url(self, database: int = 0) -> str:
        """Return the URL for redis-py and Celery, with the password."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/{database}"

    def start(self, timeout: float = 20.0) -> None:
        """Start the server and wait until it answers; stop it on any error."""
        self.launch()
        self.wait_ready(timeout)

    def launch(self) -> None:
        """Start the server without waiting for it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = self.folder / "password"
        if not password.exists():
            write_private(password, secrets.token_hex(24))
        self._password = password.read_text().strip()
        self._child.clear_leftover()
        self._spawn()

    def wait_ready(self, timeout: float = 20.0) -> None:
        """Wait until the server accepts the password and has loaded its data."""
        try:
            self._child.wait_ready(
                self._is_ready,
                respawn=self._spawn,
                retry_on="address already in use",
                timeout=timeout,
            )
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 4.0) -> None:
        """Stop the server, which saves its data; by SIGKILL after the timeout."""
        self._child.stop(timeout)

    def request_stop(self) -> None:
        """Request a shutdown without waiting for it."""
        self._child.request_stop()

    def exit_error(self) -> LocalError | None:
        """Return why the server ended by itself, or None while it runs."""
        code = self._child.poll()
        return None if code is None else self._child.error(f"ended with exit code {code}")

    def _spawn(self) -> None:
        self.port = free_port()
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": _quoted(str(self.folder)),
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes" if self._persistent else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "requirepass": self._password,
        }
        config = self.folder / "server.conf"  # other users can read command lines
        write_private(config, "".join(f"{key} {value}\n" for key, value in lines.items()))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("VALENCE_")}
        self._child.start([str(find_valkey()), str(config)], env=inherited)

    def _is_ready(self) -> bool:
        # Two inline commands of the protocol, without importing a client library.
        request = f"AUTH {self._password}\r\nPING\r\n".encode()
        expected = b"+OK\r\n+PONG\r\n"
        response = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(request)
                while len(response) < len(expected) and (data := connection.recv(64)):
                    response += data
        except OSError:
            return False
        return response == expected


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
