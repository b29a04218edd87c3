"""Runs a whole Valence in the foreground: starts its parts in order, watches them, stops them all.

Postgres, Valkey and the worker are children; both web services live in this process.
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
from valence.local.data_dir import Home
from valence.local.errors import LocalError
from valence.local.ports import reserve
from valence.local.postgres import Postgres
from valence.local.processes import Child
from valence.local.valkey import Valkey

if TYPE_CHECKING:
    from valence.local.services import Web

# A stop may take 10 s: requests drain first, then everything else shares what is left.
_DRAIN_S, _STOP_S = 2, 7.0
_WORKER_STOP_S, _VALKEY_STOP_S, _POSTGRES_STOP_S = 3.5, 1.0, 1.5
_WATCH_S = 0.5
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_S = 30.0  # a worker that ran this long starts over with the shortest pause


class _Interrupted(BaseException):
    """A stop signal that came before the web server was there to take it."""


class Launcher:
    """One local Valence on one home and one port."""

    def __init__(self, home: Home, *, host: str, port: int, console: Console) -> None:
        self._home, self._host, self._port, self._console = home, host, port, console
        self._postgres = Postgres(home.postgres, log=home.logs / "postgres.log")
        self._valkey = Valkey(home.valkey, persistent=True, log=home.logs / "valkey.log")
        self._worker = Child(
            "The worker",
            record=home.worker / "worker.json",
            log=home.logs / "worker.log",
            # When we are killed its servers go as well: there is nothing it could finish.
            death_signal=signal.SIGKILL,
        )
        self._worker_env: dict[str, str] = {}
        self._stop_by = float("inf")
        self._failure: LocalError | None = None

    def run(self) -> None:
        """Serve until a stop signal; LocalError when something keeps it from going on."""
        with self._home.locked(), reserve(self._host, self._port) as public:
            self._port = public.getsockname()[1]
            url = f"http://{self._host}:{self._port}"
            self._home.announce(url)
            try:
                interrupted = _interrupt_on_signals()
                web = self._start()
                if interrupted.is_set():  # raised where Python had to swallow it
                    raise _Interrupted
                asyncio.run(self._serve(web, public, url))
            except _Interrupted:
                pass
            finally:
                _ignore_signals()
                self._stop()
        if self._failure is not None:
            raise self._failure

    def _start(self) -> "Web":
        # Children start in the main thread: Linux ties their death signal to the thread.
        first = not self._home.postgres.exists()
        self._say(
            "Starting Valence; the first time takes longer…" if first else "Starting Valence…"
        )
        self._worker.clear_leftover()
        self._valkey.launch()
        self._postgres.launch()
        # Imported only now, so that both servers come up meanwhile.
        from valence.local import migrations, services  # noqa: PLC0415

        self._valkey.wait_ready()
        self._postgres.wait_ready()
        self._worker_env = services.configure(
            self._home, database_url=self._postgres.url(), redis_url=self._valkey.url()
        )
        migrations.upgrade(self._postgres.url())
        self._start_worker()
        return services.Web()

    async def _serve(self, web: "Web", public: socket.socket, url: str) -> None:
        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            async with web.lifespan():
                watching = asyncio.create_task(self._watch())
                try:
                    yield
                finally:
                    self._stop_by = time.monotonic() + _STOP_S
                    watching.cancel()
                    self._worker.ask_to_stop()  # it ends beside the services

        await web.serve(
            public,
            lifespan=lifespan,
            drain_seconds=_DRAIN_S,
            on_started=lambda: banner.show(url, self._home.folder, self._console),
        )
        _ignore_signals()  # serve() took its handlers away

    async def _watch(self) -> None:
        """Start the worker again when it ends; give up when a server does."""
        failures, started = 0, time.monotonic()
        while True:
            await asyncio.sleep(_WATCH_S)
            self._failure = self._postgres.ended() or self._valkey.ended()
            if self._failure is not None:
                os.kill(os.getpid(), signal.SIGTERM)  # the way out that drains
                return
            code = self._worker.poll()
            if code is not None:
                failures = 0 if time.monotonic() - started > _STEADY_S else failures
                pause = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                self._say(
                    f"The worker ended with exit code {code} and is started again; "
                    f"see {self._worker.log}."
                )
                await asyncio.sleep(pause)
                self._worker.stop(timeout=0)  # what its pool left
                self._start_worker()
                failures, started = failures + 1, time.monotonic()

    def _start_worker(self) -> None:
        command = [sys.executable, "-m", "valence_batch_worker"]
        metrics = self._home.worker / "metrics"  # files of processes that were killed stay there
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir(mode=0o700)
        self._worker.start(
            command,
            env=self._worker_env | {"PROMETHEUS_MULTIPROC_DIR": str(metrics)},
            cwd=self._home.worker,
        )

    def _stop(self) -> None:
        """Stop all children in reverse order, within the time that is left."""
        stop_by = min(self._stop_by, time.monotonic() + _STOP_S)

        def left() -> float:
            return stop_by - time.monotonic()

        self._worker.stop(min(_WORKER_STOP_S, left()))
        self._valkey.ask_to_stop()
        self._postgres.ask_to_stop()
        self._valkey.stop(_VALKEY_STOP_S)
        self._postgres.stop(max(_POSTGRES_STOP_S, left()))

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)


def _interrupt_on_signals() -> threading.Event:
    """Make stop signals end the start-up; the web server replaces the handlers with its own.

    The event tells that there was one: an exception that comes up in a destructor or a callback of
    the collector is printed and goes no further.
    """
    interrupted = threading.Event()

    def interrupt(*_: object) -> NoReturn:
        interrupted.set()
        _ignore_signals()
        raise _Interrupted

    def hang_up(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # a closed terminal stops it in the same way

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, hang_up)
    return interrupted


def _ignore_signals() -> None:
    """From here on everything is being stopped, and a second Ctrl-C must not cut that short."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
