"""Events end to end: real services publish them as docs/events.md says."""

import re
from typing import Any

import pytest

from support import credentials
from support.events import PAGE, Reader, about, judge_order, stream
from support.jobs import Jobs
from support.rows import query
from support.servers import Servers
from support.stack import PASSWORD, Account
from support.waiting import until
from valence_common.audit import PUBLISHED

API = "/api/v1"


def wait_for_event(
    reader: Reader, account: Account, type_: str
) -> list[tuple[str, str, dict[str, Any]]]:
    """Wait for an account's event of that type; return all its events, checked for order."""
    until(lambda: type_ in {event for event, _, _ in about(reader.handled, account.id)}, timeout=60)
    judge_order(reader.handled)
    return about(reader.handled, account.id)


def test_page_lists_every_event_type() -> None:
    """And no other."""
    listed = re.findall(r"^\| `(\w+\.\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(PUBLISHED) == sorted(listed)


def test_events_of_an_account(jobs: Jobs) -> None:
    """From its registration to its erasure, with what an administrator does to it."""
    stack = jobs.stack
    jobs.start_worker(relay_seconds=0.1)
    admin = credentials.admin(stack)

    def ask(who: Account, method: str, path: str, body: Any = None) -> Any:
        answer = stack.request(method, f"{API}{path}", headers=who.headers, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    with Reader(jobs.stack.redis_url) as reader:
        account = stack.sign_up()
        first = ask(account, "POST", "/api-keys", {"name": "a secret name"})["id"]
        second = ask(account, "POST", f"/api-keys/{first}/rotate")["id"]
        ask(account, "DELETE", f"/api-keys/{second}")
        words = {"current_password": PASSWORD, "new_password": f"{PASSWORD} too"}
        ask(account, "PUT", "/users/me/password", words)
        for state in ({"is_active": False}, {"is_active": True}, {"is_superuser": True}):
            ask(admin, "PATCH", f"/admin/users/{account.id}", state)
        ask(admin, "PATCH", f"/admin/users/{account.id}", {"is_superuser": False})
        ask(admin, "DELETE", f"/admin/users/{account.id}")
        events = wait_for_event(reader, account, "account.erasure_finished")
        content = str(reader.handled)
    me = account.id
    assert events == [
        ("account.registered", me, {}),
        ("key.created", first, {"scopes": ["analyze", "batch", "history"]}),
        ("key.rotated", first, {"to": second}),
        ("key.revoked", second, {}),
        ("password.changed", me, {"ended": 0}),
        ("user.disabled", me, {"sessions": 1}),
        ("user.enabled", me, {"sessions": 0}),
        ("user.promoted", me, {"sessions": 0}),
        ("user.demoted", me, {"sessions": 0}),
        ("account.erased", me, {}),
        ("account.erasure_finished", me, {}),
    ]
    for secret in (account.username, account.email, "a secret name", PASSWORD):
        assert secret not in content


@pytest.mark.faults
def test_events_of_a_batch_survive_faults(servers: Servers, jobs: Jobs) -> None:
    """Redis loses its data, then it and a worker are killed: each event once, in order."""
    jobs.start_workers(2, relay_seconds=0.1)
    with Reader(jobs.stack.redis_url) as reader:
        account, task_id, texts = jobs.submit(400)
        jobs.wait_midway(task_id, len(texts))
        servers.valkey.flush()
        jobs.stack.running("batch_worker")[0].kill()
        with servers.valkey.down():
            other = jobs.submit(20)
        jobs.judge(account, task_id, texts)
        jobs.judge(*other)
        ended = {"total": 400, "failed": 0}
        assert wait_for_event(reader, account, "batch.completed") == [
            ("batch.accepted", task_id, {"total": 400}),
            ("batch.completed", task_id, ended),
        ]
        events = wait_for_event(reader, other[0], "batch.completed")
        assert ["batch.accepted", "batch.completed"] == [type_ for type_, _, _ in events]
        written = query(jobs.stack.database_url, "SELECT count(*) FROM events")
        until(lambda: [(len(reader.handled),)] == written, timeout=30, what="each event once")
    with jobs.stack.redis() as client:
        assert written == [(len(stream(client)),)]


@pytest.mark.faults
def test_next_worker_publishes_the_waiting_events(jobs: Jobs) -> None:
    """Without a worker events wait; none is lost."""
    worker = jobs.start_worker(relay_seconds=0.1)
    worker.kill()
    accounts = [jobs.stack.sign_up() for _ in range(3)]
    with Reader(jobs.stack.redis_url) as reader:
        jobs.start_worker(relay_seconds=0.1)
        for account in accounts:
            [(type_, _, _)] = wait_for_event(reader, account, "account.registered")
            assert "account.registered" == type_
