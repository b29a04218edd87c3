"""What must hold in every reliability case, whatever is sent: U1 to U6.

`CheckedClient` judges answers (U1 to U3) and, after each test, the logs. `Watch` judges once a
module what takes longer to see: liveness (U4), resources (U5), and that all still works (U6).
"""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from support.probes import LivenessProbe
from support.raw import Answer, exchange
from support.rows import query
from support.stack import Account, Service, Stack
from support.waiting import until

MAX_PROBLEM_BYTES = 4096
MAX_GROWTH_BYTES = 64 * 1024 * 1024
MAX_LIVEZ_SECONDS = 1.0
SETTLE_SECONDS = 30
MORE_FILES = 40  # pools fill when they are first used, and the client keeps 20 connections
MORE_CONNECTIONS = 10


def web(stack: Stack) -> list[Service]:
    """The services that clients speak to."""
    return stack.running("auth") + stack.running("inference")


@dataclass
class CheckedClient:
    """Sends requests on behalf of a case and remembers what may not come back."""

    stack: Stack
    secrets: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lengths = {s.pid: s.log.stat().st_size for s in web(self.stack)}

    def secret(self, value: str) -> str:
        """Remember a value that no answer and no log line may hold."""
        self.secrets.add(value)
        return value

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request; its answer is judged at once (U1, U2, U3)."""
        answer = self.stack.request(method, path, **options)
        self._judge_answer(answer.status_code, dict(answer.headers), answer.content)
        return answer

    def post(
        self, path: str, body: bytes | str, account: Account | None = None, **headers: str
    ) -> httpx.Response:
        """Post bytes, as JSON unless `content_type` says otherwise; judged at once."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        credentials = account.headers if account else {}
        return self.request(
            "POST",
            path,
            content=body,
            headers={"content-type": "application/json", **credentials, **named},
        )

    def raw(self, path: str, data: bytes, **options: Any) -> list[Answer]:
        """Send bytes to the service of a path; its answers are judged at once."""
        answers = exchange(self.stack.url(path), data, **options)
        for answer in answers:
            self._judge_answer(answer.status, answer.headers, answer.body)
        return answers

    def judge(self) -> None:
        """U1 and U3 for the logs."""
        for service in web(self.stack):
            self._judge_log(service)

    def _judge_answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        assert status < 500 or (status == 503 and "retry-after" in headers), f"U1: {status}"
        if status >= 400:
            kind = headers["content-type"].partition(";")[0]
            assert kind == "application/problem+json", f"U2: {status} is {kind}"
            assert len(body) <= MAX_PROBLEM_BYTES, f"U2: {len(body)} bytes"
        text = body.decode("utf-8", "replace")
        assert "Traceback" not in text, "U3: a stack trace in an answer"
        for secret in self.secrets:
            assert secret not in text, "U3: a secret in an answer"

    def _judge_log(self, service: Service) -> None:
        new = service.output(self._lengths.get(service.pid, 0))
        for secret in self.secrets | self.stack.secrets:
            assert secret not in new, f"U3: {service.name} logged a secret"
        assert "Traceback" not in new, f"U3: {service.name} logged a stack trace:\n{new}"
        for line in new.splitlines():
            event = json.loads(line)
            assert event["event"] != "unhandled", f"U1: {service.name} did not expect {event}"


class Watch:
    """Looks after the web services while a module of tests sends them whatever it sends."""

    def __init__(self, stack: Stack):
        self._stack = stack
        self._services = web(stack)
        self._memory = {s.pid: psutil.Process(s.pid).memory_info().rss for s in self._services}
        self._files = {s.pid: psutil.Process(s.pid).num_fds() for s in self._services}
        self._connections = self._count_connections()
        self._probes = LivenessProbe(self._services, limit=MAX_LIVEZ_SECONDS, interval=0.2)
        self._probes.start()

    def judge(self) -> None:
        """U4, U5 and U6."""
        self._probes.judge()
        self._stack.canary()
        for service in self._services:
            if service.process.poll() is None:
                self._judge_resources(service)
        until(
            lambda: self._count_connections() <= self._connections + MORE_CONNECTIONS,
            timeout=SETTLE_SECONDS,
            what="U5: Postgres connections back at their baseline",
        )

    def _count_connections(self) -> int:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        return int(query(self._stack.database_url, statement)[0][0])

    def _judge_resources(self, service: Service) -> None:
        process = psutil.Process(service.pid)
        grown = process.memory_info().rss - self._memory[service.pid]
        assert grown < MAX_GROWTH_BYTES, f"U5: {service.name} grew by {grown} bytes"
        until(
            lambda: process.num_fds() <= self._files[service.pid] + MORE_FILES,
            timeout=SETTLE_SECONDS,
            what=f"U5: open files of {service.name} back at their baseline",
        )
