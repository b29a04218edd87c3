"""A Postgres and a Valkey of a test module's own, to freeze, kill and start again."""

import atexit
import contextlib
import functools
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from unittest.mock import patch

import psutil
import redis

from support.ports import own_port
from support.rows import query
from support.stack import Stack
from valence.local import migrations
from valence.local.postgres import Postgres
from valence.local.valkey import Valkey

QUICK = {"fsync": "off", "full_page_writes": "off", "max_connections": "60"}


class FragilePostgres(Postgres):
    """Always on the same port."""

    def __init__(self, folder: Path):
        super().__init__(folder, settings=QUICK)
        self._own_port = own_port()

    def _spawn(self) -> None:
        with patch("valence.local.postgres.free_port", lambda: self._own_port):
            super()._spawn()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Neither the server nor any backend runs; the kernel still acknowledges what is sent."""
        with _frozen(_family(self.pid)):
            yield

    def kill(self) -> None:
        """SIGKILL all of it: what is lost when the node dies."""
        _kill(_family(self.pid))
        self.stop()

    def terminate_sessions(self) -> None:
        """End every session but the one that asks."""
        query(
            self.url(),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )


class FragileValkey(Valkey):
    """Always on the same port; without persistence, so that a kill empties it."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._own_port = own_port()

    def _spawn(self) -> None:
        with patch("valence.local.valkey.free_port", lambda: self._own_port):
            super()._spawn()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The server takes connections (the kernel does) and never answers."""
        with _frozen([psutil.Process(self.pid)]):
            yield

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Killed, and started again empty."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    def kill(self) -> None:
        """SIGKILL."""
        _kill([psutil.Process(self.pid)])
        self.stop()

    def flush(self) -> None:
        """FLUSHALL."""
        with self.client() as client:
            client.flushall()

    def client(self) -> "redis.Redis":
        """A client that sees strings."""
        return redis.Redis.from_url(self.url(), decode_responses=True)


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


@contextlib.contextmanager
def _frozen(processes: list[psutil.Process]) -> Iterator[None]:
    try:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # a session that has just ended
                process.suspend()
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=10)


@functools.cache
def _migrated() -> Path:
    """The folder of a server that has the schema and is stopped: to be copied by this process."""
    folder = Path(tempfile.mkdtemp(prefix="valence-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with Postgres(folder, settings=QUICK) as postgres:
        migrations.upgrade(postgres.url())
    return folder


@dataclass
class Servers:
    """A Postgres and a Valkey that a test may freeze and kill, and services that use them."""

    postgres: FragilePostgres
    valkey: FragileValkey
    stack: Stack

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path, **services: dict[str, object]) -> Iterator[Self]:
        """Start migrated servers and these services with their settings; stop all at the end."""
        with contextlib.ExitStack() as exits:
            valkey = exits.enter_context(FragileValkey(folder / "valkey"))
            ours = shutil.ignore_patterns("server.*")  # the record and the log of a process
            shutil.copytree(_migrated(), folder / "postgres", ignore=ours)
            postgres = exits.enter_context(FragilePostgres(folder / "postgres"))
            # What breaks is to be noticed as quickly as anywhere.
            all_services = {
                n: {"redis_timeout_seconds": 0.2} | more for n, more in services.items()
            }
            urls = postgres.url(), valkey.url()
            stack = Stack.started(folder / "stack", *urls, **all_services)
            yield cls(postgres, valkey, exits.enter_context(stack))

    def revive(self) -> None:
        """Start the servers that a failed test left dead."""
        for server in (self.postgres, self.valkey):
            if server.ended() is not None:
                server.start()
