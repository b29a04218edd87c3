"""Run all of Valence in the foreground: start its parts in order, supervise them, stop them.

Postgres, Valkey and the worker are child processes; both web services run in this process.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from valence.local import banner
from valence.local.data_dir import DataDir
from valence.local.errors import LocalError
from valence.local.ports import reserve
from valence.local.postgres import Postgres
from valence.local.processes import Child
from valence.local.valkey import Valkey

if TYPE_CHECKING:
    from valence.local.services import WebServices

# Stopping must take at most 10 s: requests drain first, the rest shares the remaining time.
_DRAIN_S, _STOP_TIMEOUT_S = 2, 7.0
_WORKER_STOP_TIMEOUT_S, _VALKEY_STOP_TIMEOUT_S, _POSTGRES_STOP_TIMEOUT_S = 3.5, 1.0, 1.5
_POLL_S = 0.5
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)
_BACKOFF_RESET_S = 30.0  # after a run of this length the backoff begins again


class _Interrupted(BaseException):
    """A stop signal arrived before the web server handles signals."""


class Launcher:
    """A local Valence on one data folder and one port."""

    def __init__(self, data_dir: DataDir, *, host: str, port: int, console: Console) -> None:
        self._data_dir, self._host, self._port, self._console = data_dir, host, port, console
        self._postgres = Postgres(data_dir.postgres, log=data_dir.logs / "postgres.log")
        self._valkey = Valkey(data_dir.valkey, persistent=True, log=data_dir.logs / "valkey.log")
        self._worker = Child(
            "The worker",
            record=data_dir.worker / "worker.json",
            log=data_dir.logs / "worker.log",
            # When this process is killed, the servers end too: the worker can finish nothing.
            death_signal=signal.SIGKILL,
        )
        self._worker_env: dict[str, str] = {}
        self._stop_deadline = float("inf")
        self._failure: LocalError | None = None

    def run(self) -> None:
        """Serve until a stop signal; raise LocalError if Valence cannot start or continue."""
        with self._data_dir.lock(), reserve(self._host, self._port) as public:
            self._port = public.getsockname()[1]
            url = f"http://{self._host}:{self._port}"
            self._data_dir.record_owner(url)
            try:
                interrupted = _interrupt_on_signals()
                web = self._start()
                if interrupted.is_set():  # Python ignored the exception, see there
                    raise _Interrupted
                asyncio.run(self._serve(web, public, url))
            except _Interrupted:
                pass
            finally:
                _ignore_signals()
                self._stop()
        if self._failure is not None:
            raise self._failure

    def _start(self) -> "WebServices":
        # Start children in the main thread: Linux ties their death signal to the thread.
        first_start = not self._data_dir.postgres.exists()
        self._echo(
            "Starting Valence; the first start takes longer…"
            if first_start
            else "Starting Valence…"
        )
        self._worker.clear_leftover()
        self._valkey.launch()
        self._postgres.launch()
        # Imported here, so that both servers start in the meantime.
        from valence.local import migrations, services  # noqa: PLC0415

        self._valkey.wait_ready()
        self._postgres.wait_ready()
        self._worker_env = services.configure(
            self._data_dir, database_url=self._postgres.url(), redis_url=self._valkey.url()
        )
        migrations.upgrade(self._postgres.url())
        self._start_worker()
        return services.WebServices()

    async def _serve(self, web: "WebServices", public: socket.socket, url: str) -> None:
        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            async with web.lifespan():
                supervisor = asyncio.create_task(self._supervise())
                try:
                    yield
                finally:
                    self._stop_deadline = time.monotonic() + _STOP_TIMEOUT_S
                    supervisor.cancel()
                    self._worker.request_stop()  # stops in parallel with the services

        await web.serve(
            public,
            lifespan=lifespan,
            drain_seconds=_DRAIN_S,
            on_started=lambda: banner.show(url, self._data_dir.path, self._console),
        )
        _ignore_signals()  # serve() has removed its handlers

    async def _supervise(self) -> None:
        """Restart the worker when it ends; stop Valence when a server ends."""
        failures, started = 0, time.monotonic()
        while True:
            await asyncio.sleep(_POLL_S)
            self._failure = self._postgres.exit_error() or self._valkey.exit_error()
            if self._failure is not None:
                os.kill(os.getpid(), signal.SIGTERM)  # drains the open requests
                return
            code = self._worker.poll()
            if code is not None:
                failures = 0 if time.monotonic() - started > _BACKOFF_RESET_S else failures
                pause = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                self._echo(
                    f"The worker ended with exit code {code} and is being restarted; "
                    f"see {self._worker.log}."
                )
                await asyncio.sleep(pause)
                self._worker.stop(timeout=0)  # kills the remaining pool processes
                self._start_worker()
                failures, started = failures + 1, time.monotonic()

    def _start_worker(self) -> None:
        command = [sys.executable, "-m", "valence_batch_worker"]
        metrics = self._data_dir.worker / "metrics"  # killed processes leave their files there
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir(mode=0o700)
        self._worker.start(
            command,
            env=self._worker_env | {"PROMETHEUS_MULTIPROC_DIR": str(metrics)},
            cwd=self._data_dir.worker,
        )

    def _stop(self) -> None:
        """Stop all children in reverse order, before the deadline."""
        deadline = min(self._stop_deadline, time.monotonic() + _STOP_TIMEOUT_S)

        def remaining() -> float:
            return deadline - time.monotonic()

        self._worker.stop(min(_WORKER_STOP_TIMEOUT_S, remaining()))
        self._valkey.request_stop()
        self._postgres.request_stop()
        self._valkey.stop(_VALKEY_STOP_TIMEOUT_S)
        self._postgres.stop(max(_POSTGRES_STOP_TIMEOUT_S, remaining()))

    def _echo(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)


def _interrupt_on_signals() -> threading.Event:
    """Raise `_Interrupted` on stop signals, until the web server installs its own handlers.

    The event is set as well: Python prints and ignores an exception that is raised in a destructor
    or in a callback of the garbage collector.
    """
    interrupted = threading.Event()

    def interrupt(*_: object) -> NoReturn:
        interrupted.set()
        _ignore_signals()
        raise _Interrupted

    def hang_up(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # closing the terminal stops Valence the same way

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, hang_up)
    return interrupted


def _ignore_signals() -> None:
    """Ignore further stop signals, so that a second Ctrl-C does not interrupt the stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
