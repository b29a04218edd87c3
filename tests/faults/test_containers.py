"""Every process as its pod runs it: PID 1, nobody's uid, no capability, nothing to write to."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support import sandbox
from support.rows import query
from support.stack import Stack
from support.waiting import until

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
STOPPED = {0, 128 + signal.SIGTERM}
"""Exit codes of a process that was told to stop; `unshare` says 128 + n for a signal."""

OF_A_WORKER = ("/tmp/valence-metrics-", "/tmp/pymp-")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sandbox.needed()
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
    secrets: Path,
    module_database_url: str,
    redis_url: str,
) -> Iterator[Stack]:
    """All three services, contained."""
    stack = Stack(tmp_path_factory.mktemp("stack"), module_database_url, redis_url)
    stack.environment |= sandbox.ENVIRONMENT
    stack.through = sandbox.command(secrets)
    shutil.copy(stack.keyring, secrets)
    web = {"jwt_keyring_file": sandbox.SECRETS / stack.keyring.name}
    try:
        for name in ("auth", "inference"):
            stack.start(name, ready=False, **web)
        stack.environment["PROMETHEUS_MULTIPROC_DIR"] = ""  # the worker makes one in its /tmp
        stack.start("batch_worker", ready=False)
        for service in stack.services:
            service.wait_ready(timeout=60)
        yield stack
    finally:
        for service in stack.services:
            service.kill()  # the one that a signal reaches is not the one that is contained
        stack.close()


def environment(**variables: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("VALENCE_")}
    return kept | sandbox.ENVIRONMENT | variables


def test_case_044_the_container_is_one(secrets: Path) -> None:
    """What the others stand on: no place but /tmp takes a byte, and who runs there is nobody."""
    look = (
        "import os\n"
        f"for path in ('/', '/var/tmp', '/mnt', {str(ROOT)!r}, {sys.prefix!r}):\n"
        "    assert os.statvfs(path).f_flag & os.ST_RDONLY, path\n"
        "open('/tmp/proof', 'w').write('x')\n"
        "status = dict(l.split(':', 1) for l in open('/proc/self/status'))\n"
        "print(os.getpid(), os.getuid(), os.getgroups(),"
        " *(status[f'Cap{k}'].strip(' \\t\\n0') for k in ('Eff', 'Prm', 'Bnd', 'Inh')))\n"
    )
    said = subprocess.run(
        sandbox.command(secrets, [sys.executable, "-c", look]),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, f"1 {sandbox.UID} []") == (said.returncode, said.stdout.strip()), said.stderr
    assert not Path("/tmp/proof").exists()


def test_case_044_migration_on_a_read_only_root(secrets: Path, empty_database_url: str) -> None:
    """The init container's command makes the whole schema and writes no file."""
    migrate = [sys.executable, "-m", "valence_common.migrations", "upgrade"]
    said = subprocess.run(
        sandbox.command(secrets, migrate),
        env=environment(
            VALENCE_DATABASE_URL=empty_database_url,
            VALENCE_MIGRATIONS_DIR=str(ROOT / "alembic"),
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == said.returncode, said.stderr
    [(revision,)] = query(empty_database_url, "SELECT version_num FROM alembic_version")
    assert f'"head": "{revision}"' in said.stdout + said.stderr


def test_case_044_services_on_a_read_only_root(stack: Stack) -> None:
    """The whole thread works; only a worker writes: its metrics and its pool's folder, to /tmp."""
    stack.canary()
    account = stack.account()
    texts = [f"text {n}" for n in range(1500)]
    task = stack.finish(account, stack.submit(account, texts))
    assert ("completed", 1500) == (task["status"], task["done"])
    for service in stack.services:
        process = sandbox.first(service)
        files = sandbox.written(process)
        if service.name == "batch_worker":
            files = [path for path in files if not path.startswith(OF_A_WORKER)]
        assert [] == files, service.name
        assert "Traceback" not in service.output()


def test_case_043_pid_1_reaps_its_children(stack: Stack) -> None:
    """Web services have none; a worker's that is killed is replaced, and no zombie is left."""
    for name in ("auth", "inference"):
        assert [] == sandbox.first(stack.running(name)[0]).children()
    [service] = stack.running("batch_worker")
    worker = sandbox.first(service)
    before = worker.children(recursive=True)
    assert before
    before[0].kill()

    def replaced() -> bool:
        now = worker.children(recursive=True)
        whole = len(now) == len(before) and before[0] not in now
        return whole and all(child.status() != psutil.STATUS_ZOMBIE for child in now)

    until(replaced, timeout=30, what="the worker's child replaced")
    stack.canary()


def test_case_043_sigterm_reaches_pid_1(stack: Stack) -> None:
    """PID 1 has no default for a signal: each service handles it, and leaves nobody behind."""
    for service in list(stack.services):
        process = sandbox.first(service)
        family = [process, *process.children(recursive=True)]
        process.terminate()
        assert service.process.wait(30) in STOPPED, service.output()
        assert [] == psutil.wait_procs(family, timeout=5)[1]
        assert "Traceback" not in service.output()
