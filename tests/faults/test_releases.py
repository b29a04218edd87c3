"""The previous release on this schema, alone and next to this release (reliability case 48).

Code N on schema N-1 is no case: who starts it waits for the migration (tests/migrations).
"""

import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import httpx
import pytest

from support.required import require
from support.rows import judge_batch
from support.stack import PASSWORD, Account, Service, Stack
from support.waiting import until

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
BEFORE = "5ca50b4"
"""The last revision whose schema is 0002."""
MEMBERS = ("services/common", "services/auth", "services/inference", "services/batch-worker", "ml")
API = "/api/v1"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python finds the code of the release before."""
    known = subprocess.run(
        ["git", "-C", str(ROOT), "cat-file", "-e", BEFORE], capture_output=True, check=False
    )
    require("history", known.returncode == 0, f"this checkout does not reach back to {BEFORE}")
    folder = tmp_path_factory.mktemp("before")
    archive = folder / "code.tar"
    with archive.open("wb") as file:
        subprocess.run(
            ["git", "-C", str(ROOT), "archive", BEFORE, *MEMBERS], stdout=file, check=True
        )
    subprocess.run(["tar", "-xf", str(archive), "-C", str(folder)], check=True)
    return {"PYTHONPATH": ":".join(str(folder / member) for member in MEMBERS)}


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, str],
    module_database_url: str,
    redis_url: str,
) -> Iterator[Stack]:
    """The three services of the release before, on the schema of this one."""
    stack = Stack(tmp_path_factory.mktemp("stack"), module_database_url, redis_url)
    stack.environment |= before
    try:
        start(stack)
        yield stack
    finally:
        stack.close()


def start(stack: Stack) -> list[Service]:
    services = [
        stack.start(name, ready=False, **settings)
        for name, settings in (
            ("auth", {}),
            ("inference", {}),
            ("batch_worker", {"concurrency": 1}),
        )
    ]
    return [service.wait_ready(timeout=60) for service in services]


def done(worker: Service) -> float:
    """Chunks that it has done, by its own metrics."""
    metrics = httpx.get(f"{worker.internal_url}/metrics", timeout=10).text.splitlines()
    found = [
        line for line in metrics if line.startswith('valence_batch_chunks_total{outcome="done')
    ]
    return sum(float(line.split()[-1]) for line in found)


def texts(total: int) -> list[str]:
    return [f"text {n} is {'good' if n % 2 else 'bad'}" for n in range(total)]


def test_case_048_the_code_is_the_release_befores(before: dict[str, str]) -> None:
    """What the others stand on: a schema of this release is news to that code."""
    look = "import valence_common.models as m; print(m.__file__, hasattr(m, 'WebhookDelivery'))"
    said = subprocess.run(
        [sys.executable, "-c", look], env=before, capture_output=True, text=True, check=True
    )
    folder = before["PYTHONPATH"].partition(":")[0]
    assert f"{folder}/valence_common/models/__init__.py False" == said.stdout.strip()


def test_case_048_the_release_before_works_on_this_schema(stack: Stack) -> None:
    """After a rollback all goes on: accounts, keys, analyses, history, batches, their end."""
    stack.canary()
    account = stack.account()
    key = stack.post(f"{API}/api-keys", account, json={"name": "a key"}).json()["key"]
    body = {"text": "I love this product!"}
    answer = stack.post(f"{API}/sentiment/analyze", headers={"X-API-Key": key}, json=body)
    assert (200, "positive") == (answer.status_code, answer.json()["sentiment"])
    history = stack.get(f"{API}/sentiment/history", account).json()["items"]
    assert [body["text"]] == [item["text"] for item in history]
    other = stack.account()
    many = texts(1200)
    task_id = stack.submit(other, many)
    assert "completed" == stack.finish(other, task_id)["status"]
    judge_batch(stack.database_url, task_id, many)
    refreshed = stack.post(
        f"{API}/auth/refresh", json={"refresh_token": account.refresh_token}
    ).json()
    stack.post(f"{API}/auth/logout", account)
    until(lambda: stack.get(f"{API}/users/me", account).status_code == 401, timeout=10)
    assert refreshed["token_type"] == "bearer"


def test_case_048_both_releases_side_by_side(stack: Stack) -> None:
    """Within a rollout either takes what the other began; workers of both share the batches."""
    [old_worker] = stack.running("batch_worker")
    old_environment, stack.environment = stack.environment, {}
    try:
        start(stack)
    finally:
        stack.environment = old_environment
    workers = stack.running("batch_worker")
    counts = {worker.pid: done(worker) for worker in workers}
    batches: list[tuple[Account, str, list[str]]] = []
    pairs = product(stack.running("auth"), stack.running("auth"), stack.running("inference"))
    for registers, logs_in, takes in pairs:
        account = _account(stack, registers, logs_in)
        many = texts(2000)
        answer = stack.client.post(
            f"{takes.url}{API}/sentiment/analyze/batch",
            json={"texts": many},
            headers=account.headers,
        )
        assert 202 == answer.status_code, answer.text
        batches.append((account, answer.json()["task_id"], many))
    for account, task_id, many in batches:
        assert "completed" == stack.finish(account, task_id)["status"]
        judge_batch(stack.database_url, task_id, many)
        for shows in stack.running("inference"):
            path = f"{shows.url}{API}/sentiment/task/{task_id}"
            task = stack.client.get(path, headers=account.headers).json()
            assert ("completed", len(many)) == (task["status"], task["done"])

    def both_worked() -> bool:
        account = batches[0][0]
        stack.finish(account, stack.submit(account, texts(2000)))
        return all(done(worker) > counts[worker.pid] for worker in workers)

    until(both_worked, timeout=60, what="chunks done by the workers of both releases")
    assert 0 == old_worker.stop(timeout=30)
    for service in stack.services:
        assert "Traceback" not in service.output()
    stack.canary()


def _account(stack: Stack, registers: Service, logs_in: Service) -> Account:
    """A user whom one process registered and another logged in."""
    name = f"user-{registers.pid}-{logs_in.pid}-{len(stack.secrets)}"
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    user = stack.client.post(f"{registers.url}{API}/auth/register", json=body)
    assert 201 == user.status_code, user.text
    form = {"username": name, "password": PASSWORD}
    tokens = stack.client.post(f"{logs_in.url}{API}/auth/login", data=form)
    assert 200 == tokens.status_code, tokens.text
    access, refresh = tokens.json()["access_token"], tokens.json()["refresh_token"]
    stack.secrets |= {access, refresh}
    return Account(user.json()["id"], name, body["email"], access, refresh)
