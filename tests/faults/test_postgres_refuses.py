"""A Postgres that reads and does not write, or has no room: 503 for what must be stored, no more.

Nothing that was accepted is lost, and nothing needs a restart after.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg2
import pytest

from support.jobs import Jobs
from support.load import at_once
from support.probes import probed
from support.required import require
from support.rows import query
from support.servers import FragilePostgres, Servers
from support.stack import PASSWORD, Account, Service
from support.waiting import until

pytestmark = pytest.mark.faults

API = "/api/v1"
DISK_BYTES = 48 * 1024 * 1024
LOOKS = 5
"""How often the worker hears that it cannot write, before it can again."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"mode=777,size={DISK_BYTES}", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    require("disk", mounted.returncode == 0, mounted.stderr.strip())
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def jobs(servers: Servers, model: Path) -> Jobs:
    """All services; the worker gives a text two attempts."""
    jobs = Jobs(servers.stack, model)
    jobs.start_worker(lease_seconds=4, max_attempts=2)
    return jobs


@pytest.fixture
def account(jobs: Jobs) -> Account:
    return jobs.stack.account()


def _administer(postgres: FragilePostgres, statement: str) -> None:
    connection = psycopg2.connect(postgres.url("postgres").replace("+psycopg2", ""))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


@contextlib.contextmanager
def storage_full(postgres: FragilePostgres) -> Iterator[None]:
    """What those who sell Postgres do about a full disk: who logs in can only read."""
    _administer(postgres, "ALTER DATABASE valence SET default_transaction_read_only = on")
    postgres.terminate_sessions()
    yield
    _administer(postgres, "ALTER DATABASE valence RESET default_transaction_read_only")


@contextlib.contextmanager
def standby(postgres: FragilePostgres) -> Iterator[None]:
    """The address leads to a standby, until that is made the primary."""
    postgres.stop()
    (postgres.folder / "data" / "standby.signal").touch()
    postgres.start()
    yield
    _administer(postgres, "SELECT pg_promote()")


BLOWS = {"storage full": storage_full, "standby": standby}


def ask(jobs: Jobs, account: Account, method: str, path: str, **body: object) -> httpx.Request:
    url = jobs.stack.url(API + path)
    return httpx.Request(method, url, headers=account.headers, **body)


def writers(jobs: Jobs, account: Account) -> list[httpx.Request]:
    """A request to each route that stores something of this user, by hand or by the way."""
    registration = {"username": "new-user", "email": "new@example.com", "password": "long enough 1"}
    login = {"username": account.username, "password": PASSWORD}
    batch = {"texts": ["good"]}
    return [
        ask(jobs, account, "POST", "/auth/register", json=registration),
        ask(jobs, account, "POST", "/auth/login", data=login),
        ask(jobs, account, "POST", "/auth/refresh", json={"refresh_token": account.refresh_token}),
        ask(jobs, account, "POST", "/api-keys", json={"name": "key", "scopes": ["analyze"]}),
        ask(jobs, account, "POST", "/sentiment/analyze", json={"text": "good"}),
        ask(jobs, account, "POST", "/sentiment/analyze/batch", json=batch),
    ]


def readers(jobs: Jobs, account: Account, task_id: str) -> list[httpx.Request]:
    paths = ("/users/me", "/sentiment/history", f"/sentiment/task/{task_id}")
    return [ask(jobs, account, "GET", path) for path in paths]


def refused(worker: Service) -> int:
    """How often the worker heard that Postgres does not do what it must."""
    return worker.output().count('"dependency": "postgres"')


def analyze(service: Service, account: Account) -> dict[str, object]:
    url, body = f"{service.url}{API}/sentiment/analyze", {"text": "good"}
    answer = httpx.post(url, json=body, headers=account.headers, timeout=20)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("blow", BLOWS)
def test_read_only(servers: Servers, jobs: Jobs, account: Account, blow: str) -> None:
    """Reads are answered, writes hear 503, and all write again as soon as somebody may."""
    stack = jobs.stack
    [worker] = stack.running("batch_worker")
    lenient = stack.start("inference", history_required=False)
    owner, task_id, texts = jobs.submit(200)
    jobs.wait_midway(task_id, 200)
    before = refused(worker)
    web = stack.running("auth") + stack.running("inference")
    with probed([*web, worker], limit=5), BLOWS[blow](servers.postgres):
        for _ in range(2):
            assert [True] * 6 == [a.is_unavailable() for a in at_once(writers(jobs, account))]
            asked = readers(jobs, owner, task_id)
            assert [200] * len(asked) == [answer.status for answer in at_once(asked)]
        assert analyze(lenient, account)["recorded"] is False
        until(lambda: refused(worker) >= before + LOOKS, timeout=60)
        count = jobs.done(task_id)
    until(lambda: analyze(lenient, account)["recorded"], timeout=10)
    until(lambda: all(a.status < 500 for a in at_once(writers(jobs, account))), timeout=10)
    assert count < 200
    jobs.judge(owner, task_id, texts)
    stack.canary()
    assert '"status": 500' not in "".join(service.output() for service in stack.services)
    lenient.kill()


def test_full_disk(servers: Servers, jobs: Jobs, account: Account, disk: Path) -> None:
    """Nothing of a request is stored or all of it; no text is called poisonous for it."""
    stack, postgres = servers.stack, servers.postgres
    [worker] = stack.running("batch_worker")
    owner, task_id, texts = jobs.submit(800)
    jobs.wait_midway(task_id, 800)
    _administer(postgres, f"CREATE TABLESPACE small LOCATION '{disk}'")
    for table in ("batches", "batch_chunks", "batch_results"):
        query(postgres.url(), f"ALTER TABLE {table} SET TABLESPACE small")
    before = refused(worker)
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    batch = {"texts": [f"{n} " + "good " * 100 for n in range(1000)]}
    send = ask(jobs, account, "POST", "/sentiment/analyze/batch", json=batch)
    assert at_once([send])[0].is_unavailable()
    until(lambda: refused(worker) >= before + LOOKS, timeout=60)
    assert worker.output().count("chunk_given_back") > 2
    assert jobs.done(task_id) < 800
    filler.unlink()
    until(lambda: at_once([send])[0].status == 202, timeout=10)
    jobs.judge(owner, task_id, texts)
    stored = "SELECT count(*) FROM batches WHERE user_id = :id AND total = 1000"
    assert [(1,)] == query(postgres.url(), stored, id=account.id)
    stack.canary()
    assert '"status": 500' not in "".join(service.output() for service in stack.services)
