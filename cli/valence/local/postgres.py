"""A private Postgres on a free loopback port, with its data in one folder."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import psycopg2
from psycopg2 import sql

from valence.local.binaries import find_postgres
from valence.local.errors import LocalError
from valence.local.ports import free_port
from valence.local.processes import Child, die_with_parent, find_process, pid_exists, write_private
from valence.local.unprivileged import Runner, find_runner

_ROLE = "valence"
_MIN_MAJOR = 15  # required by the schema
_BUILTIN_LOCALE_MAJOR = 17  # the first version with a built-in C.UTF-8
# Errors after which another attempt can succeed: another process took the port, or the last
# processes of a killed server still hold its shared memory.
_RETRIABLE = "address already in use|shared memory block|lock file .* already exists"


class Postgres:
    """The server of one folder, with password login only (SCRAM) and one role, `valence`.

    The server ends with the process, and with the thread, that started it (see
    `processes.die_with_parent`).
    """

    def __init__(
        self, folder: Path, *, settings: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.port = 0
        self._settings = dict(settings or {})
        self._data = self.folder / "data"
        self._child = Child(
            "Postgres",
            record=self.folder / "server.json",
            log=log or self.folder / "server.log",
            stop_signals=(signal.SIGINT, signal.SIGQUIT),  # fast shutdown, then immediate
            death_signal=signal.SIGINT,
        )
        self._postgres = Path()
        self._runner = Runner()
        self._password = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process ID; the command that drops root privileges execs the server."""
        return self._child.pid

    def url(self, database: str = "valence") -> str:
        """Return the URL for SQLAlchemy, with the password."""
        return f"postgresql+psycopg2://{_ROLE}:{self._password}@127.0.0.1:{self.port}/{database}"

    def start(self, timeout: float = 60.0) -> None:
        """Start the server and wait until a login works; stop it on any error."""
        self.launch()
        self.wait_ready(timeout)

    def launch(self) -> None:
        """Initialise the data folder if necessary, and start the server without waiting for it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._child.clear_leftover()
        self._postgres, initdb = find_postgres()
        self._runner, version = find_runner([str(self._postgres), "--version"])
        major = int(re.findall(r"\d+", version)[0])
        if major < _MIN_MAJOR:
            raise LocalError(
                f"{self._postgres} is Postgres {major}; Valence needs {_MIN_MAJOR} or newer."
            )
        self._password = self._read_password()
        if not self._data.exists():
            self._init_cluster(initdb, major)
        data_major = (self._data / "PG_VERSION").read_text().strip()
        if data_major != str(major):
            raise LocalError(
                f"The data in {self._data} was created by Postgres {data_major}, but "
                f"{self._postgres} is {major}: install that version, or choose another "
                "VALENCE_HOME."
            )
        self._chown_data()
        self._remove_stale_pid_file()
        self._spawn()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until a login works, and create the `valence` database if it is missing."""
        try:
            self._child.wait_ready(
                self._accepts_login, respawn=self._spawn, retry_on=_RETRIABLE, timeout=timeout
            )
            if not self._exists("valence"):
                self.create_database("valence")
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 8.0) -> None:
        """Stop the server: fast shutdown, then immediate shutdown, then SIGKILL."""
        self._child.stop(timeout)

    def request_stop(self) -> None:
        """Request a fast shutdown without waiting for it."""
        self._child.request_stop()

    def exit_error(self) -> LocalError | None:
        """Return why the server ended by itself, or None while it runs."""
        code = self._child.poll()
        return None if code is None else self._child.error(f"ended with exit code {code}")

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, optionally as a copy of `template`."""
        clause = (
            sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
        )
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + clause)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, and close its connections."""
        self._execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def _spawn(self) -> None:
        self.port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",  # the path of the data folder can be too long for one
            "logging_collector": "off",
            "lc_messages": "C",  # _RETRIABLE is English
            # By default Postgres logs an error with its statement and row: names, e-mails, texts.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
            **self._settings,
        }
        self._child.start(
            [
                *self._runner.prefix,
                *(str(self._postgres), "-D", str(self._data)),
                *(part for item in settings.items() for part in ("-c", "=".join(item))),
            ],
            env=_environment(),
        )

    def _init_cluster(self, initdb: Path, major: int) -> None:
        # Initialised elsewhere and renamed: a killed initdb leaves no incomplete data folder.
        for incomplete in self.folder.glob("initdb-*"):
            shutil.rmtree(incomplete, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.folder))
        password_file, data = temporary / "password", temporary / "data"
        write_private(password_file, self._password)
        data.mkdir(mode=0o700)
        if self._runner.owner is not None:
            for path in (temporary, password_file, data):
                os.chown(path, *self._runner.owner)
        locale = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
        builtin = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
        done = subprocess.run(  # noqa: S603 - our own binaries
            [
                *self._runner.prefix,
                *(str(initdb), "-D", str(data), "-U", _ROLE, "-A", "scram-sha-256"),
                *(f"--pwfile={password_file}", "--encoding=UTF8"),
                *(builtin if major >= _BUILTIN_LOCALE_MAJOR else (f"--locale={locale}",)),
                *(("--no-sync",) if self._settings.get("fsync") == "off" else ()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
            check=False,
        )
        if done.returncode != 0:
            tail = "\n".join(done.stdout.splitlines()[-12:])
            raise LocalError(f"initdb failed in {self.folder}:\n{tail}")
        data.rename(self._data)
        shutil.rmtree(temporary)

    def _chown_data(self) -> None:
        # For root, the way to drop privileges can differ between starts, and the owner with it.
        owner = self._runner.owner or (os.geteuid(), os.getegid())
        if os.geteuid() != 0 or self._data.stat().st_uid == owner[0]:
            return
        for path in (self._data, *self._data.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)

    def _remove_stale_pid_file(self) -> None:
        # Postgres ignores the pid file of a dead process, but mistakes any process with a reused
        # pid for another server. A server that does run is still protected by its shared memory.
        pid_file = self._data / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = pid_file.read_text().splitlines()
            pid, started = int(lines[0]), float(lines[2])
            if pid_exists(pid) and not find_process(pid, started, tolerance=30.0):
                pid_file.unlink()

    def _read_password(self) -> str:
        path = self.folder / "password"
        if not path.exists():
            write_private(path, secrets.token_hex(24))
        return path.read_text().strip()

    def _accepts_login(self) -> bool:
        try:
            with self._connection(timeout=2):
                return True
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise LocalError(
                    f"The password in {self.folder / 'password'} does not fit the data in "
                    f"{self._data}: restore that file, or remove {self.folder}."
                ) from None
            return False

    def _exists(self, name: str) -> bool:
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            return cursor.fetchone() is not None

    def _execute(self, statement: sql.Composed) -> None:
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    @contextlib.contextmanager
    def _connection(self, timeout: int = 10) -> Iterator[Any]:
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user=_ROLE,
            password=self._password,
            dbname="postgres",
            connect_timeout=timeout,
        )
        connection.autocommit = True  # CREATE and DROP DATABASE cannot run in a transaction
        try:
            yield connection
        finally:
            connection.close()


def _environment() -> dict[str, str]:
    """Return the environment without variables that libpq and the server read (PGDATA, …)."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "VALENCE_"))}
    # Without a locale, macOS starts a thread in the postmaster, which then exits.
    return inherited | {"LC_ALL": "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"}
