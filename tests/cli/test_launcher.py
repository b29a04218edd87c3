"""The launcher as a user meets it: a real one, on a home of the test's own."""

import contextlib
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

from support.local import STOPPED, Local
from support.waiting import until


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    return left(processes)  # one went while it was looked at


def wait_gone(processes: list[psutil.Process], timeout: float = STOPPED) -> None:
    until(lambda: not left(processes), timeout=timeout, what="processes gone")


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
    """A launcher for the tests that leave it running."""
    with Local(tmp_path_factory.mktemp("local") / "home") as local:
        local.login()
        yield local


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where nothing is yet."""
    return tmp_path / "home"


def test_banner_lines_work_when_pasted(local: Local) -> None:
    """Three lines, whole, in a plain shell, one after the other."""
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
    """One port, the ingress's routes, and a real worker behind."""
    assert "grace" == local.client.get("/api/v1/users/me").json()["username"]
    task_id = local.submit(["good", "bad"])
    until(lambda: local.completed(task_id), timeout=30)
    assert 200 == local.client.get("/docs").status_code


def test_no_secret_stands_on_a_command_line_or_in_the_output(local: Local) -> None:
    """Nor does the worker hold the keys that sign tokens."""
    passwords = [(local.home / f"{name}/password").read_text() for name in ("postgres", "valkey")]
    public = local.output.read_text() + "".join(
        " ".join(process.cmdline()) for process in local.everything()
    )
    assert not any(password in public for password in passwords)
    worker = psutil.Process(local.pid("worker/worker"))
    assert not {"VALENCE_JWT_KEYRING_FILE", "VALENCE_HOME"} & worker.environ().keys()


def test_a_second_start_says_who_runs(local: Local) -> None:
    """One sentence, no traceback, and the first one goes on."""
    second = run("--home", str(local.home), "--port", "0")
    sentence = f"Valence already runs on {local.home} (pid {local.process.pid}, {local.url})."
    assert (1, sentence, "") == (second.returncode, second.stderr.strip(), second.stdout)
    assert 200 == local.client.get("/health").status_code


def test_a_worker_that_is_killed_comes_back(local: Local) -> None:
    """Its pool goes with it, and the next batch is done by the new one."""
    before = local.pid("worker/worker")
    pool = psutil.Process(before).children(recursive=True)
    os.kill(before, signal.SIGKILL)
    until(lambda: local.pid("worker/worker") != before, timeout=15)
    wait_gone(pool)
    assert "The worker ended with exit code -9" in local.output.read_text()
    test_both_services_and_the_worker_are_there(local)


def test_a_killed_launcher_leaves_nothing_and_the_batch_completes(home: Path) -> None:
    """kill -9 in the middle of a batch: the next start finds no old child and finishes the work."""
    local = Local(home, VALENCE_LEASE_SECONDS="3").ready()
    local.login()
    children = local.everything()
    task_id = local.submit([f"text {n} is {'good' if n % 2 else 'bad'}" for n in range(20_000)])
    keys = (home / "keyring.json").read_bytes()
    local.process.kill()
    local.process.wait()
    with Local(home) as again:  # at once
        assert [] == left(children)
        again.client.headers = local.client.headers
        assert keys == (home / "keyring.json").read_bytes()
        assert 20_000 == until(lambda: again.completed(task_id), timeout=60)["done"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_stop_signal_ends_every_child(home: Path, number: signal.Signals) -> None:
    """Within 10 s, with exit code 0; a second signal on the way does no harm."""
    with Local(home) as local:
        children = local.everything()
        local.process.send_signal(number)
        assert 0 == local.end(number)
        assert [] == left(children)


def test_a_stuck_child_does_not_hold_up_the_stop(home: Path) -> None:
    """Frozen servers and a frozen worker are killed in time."""
    with Local(home) as local:
        children = local.everything()
        for name in ("postgres/server", "valkey/server", "worker/worker"):
            os.kill(local.pid(name), signal.SIGSTOP)
        assert 0 == local.end(signal.SIGTERM)
        wait_gone(children, timeout=1)


def test_a_lost_server_stops_everything_and_says_so(home: Path) -> None:
    """Postgres ends by itself: the rest follows, with the end of its log."""
    with Local(home) as local:
        children = local.everything()
        os.kill(local.pid("postgres/server"), signal.SIGKILL)
        assert 1 == local.process.wait(STOPPED + 1)
        assert [] == left(children)
        assert "Postgres ended with exit code -9" in local.output.read_text()


def test_a_signal_during_the_start_leaves_nothing(home: Path) -> None:
    """Ctrl-C is heard before the first answer, too; the next start makes what was not finished."""
    local = Local(home)
    children = until(
        lambda: psutil.Process(local.process.pid).children(recursive=True),
        timeout=20,
        interval=0.01,
    )
    assert 0 == local.end(signal.SIGINT)
    wait_gone(
        children, timeout=2
    )  # what initdb itself had started sees a closed pipe, a little later
    with Local(home):
        pass


def test_a_taken_port_is_named_before_anything_starts(home: Path) -> None:
    """One sentence with the port, and no data folder yet."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--home", str(home), PORT=str(port))
    sentence = f"Port {port} on 127.0.0.1 is taken: choose another with PORT."
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
    """One sentence, and nothing stays running."""
    done = run("--home", str(home), "--port", "0", **{name: value})
    assert 1 == done.returncode
    assert re.fullmatch(sentence, done.stderr.strip())
    assert not (home / "postgres/server.json").exists()
