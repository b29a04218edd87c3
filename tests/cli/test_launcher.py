"""The launcher as a user runs it: a real process with its own data folder."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from websockets.sync.client import connect

from support.live import STREAM, closed, events_path, read
from support.local import STOPPED, Local
from support.waiting import until


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that have not ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    return running(processes)  # one ended between the two calls


def wait_ended(processes: list[psutil.Process], timeout: float = STOPPED) -> None:
    until(lambda: not running(processes), timeout=timeout, what="processes ended")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "valence", "local", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A launcher that the tests share; they must leave it running."""
    with Local(tmp_path_factory.mktemp("local") / "home") as local:
        local.login()
        yield local


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data folder that does not exist yet."""
    return tmp_path / "home"


def test_banner_lines_work_when_pasted(local: Local) -> None:
    """The three commands are not wrapped and work in a plain shell, one after the other."""
    banner = until(
        lambda: "Ctrl-C" in (text := local.output.read_text()) and text,
        timeout=5,
        what="the banner",
    )
    lines = [line for line in banner.splitlines() if line.startswith(("curl", "TOKEN"))]
    assert 3 == len(lines)
    assert f"{local.url}/docs" in banner
    shell = subprocess.run(
        ["sh", "-e"], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    assert '"username":"ada"' in shell.stdout
    assert '"sentiment":"positive"' in shell.stdout


def test_both_services_and_the_worker_are_there(local: Local) -> None:
    """One port serves the routes of both services, and a worker processes batches."""
    assert "grace" == local.client.get("/api/v1/users/me").json()["username"]
    task_id = local.submit(["good", "bad"])
    until(lambda: local.completed(task_id), timeout=30)
    assert 200 == local.client.get("/docs").status_code


def test_no_secret_is_on_a_command_line_or_in_the_output(local: Local) -> None:
    """Nor does the worker get the signing keys."""
    passwords = [(local.home / f"{name}/password").read_text() for name in ("postgres", "valkey")]
    public = local.output.read_text() + "".join(
        " ".join(process.cmdline()) for process in local.everything()
    )
    assert not any(password in public for password in passwords)
    worker = psutil.Process(local.pid("worker/worker"))
    assert not {"VALENCE_JWT_KEYRING_FILE", "VALENCE_HOME"} & worker.environ().keys()


def test_a_second_start_names_the_first(local: Local) -> None:
    """One sentence, no traceback, and the first launcher continues."""
    second = run("--home", str(local.home), "--port", "0")
    sentence = f"Valence already runs on {local.home} (pid {local.process.pid}, {local.url})."
    assert (1, sentence, "") == (second.returncode, second.stderr.strip(), second.stdout)
    assert 200 == local.client.get("/health").status_code


@pytest.mark.faults
def test_a_killed_worker_is_restarted(local: Local) -> None:
    """Its pool ends too, and the new worker processes the next batch."""
    before = local.pid("worker/worker")
    pool = psutil.Process(before).children(recursive=True)
    os.kill(before, signal.SIGKILL)
    until(lambda: local.pid("worker/worker") != before, timeout=15)
    wait_ended(pool)
    assert "The worker ended with exit code -9" in local.output.read_text()
    test_both_services_and_the_worker_are_there(local)


@pytest.mark.faults
def test_a_killed_launcher_leaves_nothing_and_the_batch_completes(home: Path) -> None:
    """After SIGKILL during a batch no child survives; the next start finishes the batch."""
    local = Local(home, VALENCE_LEASE_SECONDS="3").ready()
    local.login()
    children = local.everything()
    task_id = local.submit([f"text {n} is {'good' if n % 2 else 'bad'}" for n in range(20_000)])
    keys = (home / "keyring.json").read_bytes()
    local.process.kill()
    local.process.wait()
    with Local(home) as again:  # immediately
        assert [] == running(children)
        again.client.headers = local.client.headers
        assert keys == (home / "keyring.json").read_bytes()
        assert 20_000 == until(lambda: again.completed(task_id), timeout=60)["done"]


def test_ctrl_c_ends_streams_sockets_and_children(home: Path) -> None:
    """Scores and events come through the one port; interrupted, all of it ends within 10 s."""
    with Local(home) as local:
        local.login()
        children = local.everything()
        url = local.url.replace("http://", "ws://") + STREAM
        with local.client.stream("GET", events_path(local.submit(["good"]))) as answer:
            assert "end" == list(read(answer.iter_lines()))[-1].name
        headers = {"Authorization": local.client.headers["authorization"]}
        with connect(url, additional_headers=headers, proxy=None) as socket:
            socket.send(json.dumps({"text": "good"}))
            assert "positive" == json.loads(socket.recv(10))["sentiment"]
            local.process.send_signal(signal.SIGINT)
            assert 1012 == closed(socket)
            assert 0 == local.process.wait(STOPPED)
        assert [] == running(children)


@pytest.mark.faults
def test_a_closed_terminal_ends_every_child(home: Path) -> None:
    """Within 10 s, with exit code 0; a second signal on the way does no harm."""
    with Local(home) as local:
        children = local.everything()
        local.process.send_signal(signal.SIGHUP)
        assert 0 == local.end(signal.SIGHUP)
        assert [] == running(children)


@pytest.mark.faults
def test_a_second_ctrl_c_does_not_interrupt_the_stop(home: Path) -> None:
    """It comes while the servers are being stopped: they end in order, and the exit code is 0."""
    with Local(home) as local:
        children = local.everything()
        worker = psutil.Process(local.pid("worker/worker"))
        worker.suspend()  # it can end only once the launcher has begun to stop its children
        local.process.send_signal(signal.SIGINT)
        until(lambda: not running([worker]), timeout=STOPPED, interval=0.001)
        assert 0 == local.end(signal.SIGINT)
        assert [] == running(children)


@pytest.mark.faults
def test_frozen_children_do_not_delay_the_stop(home: Path) -> None:
    """Frozen servers and a frozen worker are killed in time."""
    with Local(home) as local:
        children = local.everything()
        for name in ("postgres/server", "valkey/server", "worker/worker"):
            os.kill(local.pid(name), signal.SIGSTOP)
        assert 0 == local.end(signal.SIGTERM)
        wait_ended(children, timeout=1)


@pytest.mark.faults
def test_a_lost_server_stops_everything(home: Path) -> None:
    """When Postgres ends, so does Valence, and prints the end of its log."""
    with Local(home) as local:
        children = local.everything()
        os.kill(local.pid("postgres/server"), signal.SIGKILL)
        assert 1 == local.process.wait(STOPPED + 1)
        assert [] == running(children)
        assert "Postgres ended with exit code -9" in local.output.read_text()


@pytest.mark.faults
def test_a_signal_during_the_start_leaves_nothing(home: Path) -> None:
    """Ctrl-C works before Valence is ready; the next start completes the initialisation."""
    local = Local(home)
    children = until(
        lambda: psutil.Process(local.process.pid).children(recursive=True),
        timeout=20,
        interval=0.01,
    )
    assert 0 == local.end(signal.SIGINT)
    # The children of initdb end a little later, when they see a closed pipe.
    wait_ended(children, timeout=2)
    with Local(home):
        pass


def test_a_taken_port_is_named_before_anything_starts(home: Path) -> None:
    """One sentence with the port, and no data folder yet."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--home", str(home), PORT=str(port))
    sentence = f"Port {port} on 127.0.0.1 is in use: choose another with PORT."
    assert (1, sentence) == (done.returncode, done.stderr.strip())
    assert not (home / "postgres").exists()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("VALENCE_COLOUR", "blue", r"VALENCE_COLOUR: no service of Valence has such a setting\."),
        ("VALENCE_LOG_LEVEL", "LOUD", r"Valence cannot start: VALENCE_LOG_LEVEL: .*\."),
    ],
)
def test_a_wrong_setting_is_named(home: Path, name: str, value: str, sentence: str) -> None:
    """One sentence, and no process keeps running."""
    done = run("--home", str(home), "--port", "0", **{name: value})
    assert 1 == done.returncode
    assert re.fullmatch(sentence, done.stderr.strip())
    assert not (home / "postgres/server.json").exists()
