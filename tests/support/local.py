"""The launcher as a process with its own data folder and port."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from support.waiting import until

READY = 60.0
STOPPED = 12.0  # the launcher stops within 10 s; the rest is for a busy test machine
USER = {"username": "grace", "password": "correct horse battery"}


class Local:
    """One launcher process and what it started."""

    def __init__(self, home: Path, port: int = 0, **environment: str) -> None:
        self.home = home
        self.output = home.parent / f"{home.name}.out"
        self.lock = home / "lock"
        self.lock.unlink(missing_ok=True)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "valence", "local", "--port", str(port)],
                env={
                    **os.environ,
                    "VALENCE_HOME": str(home),
                    "VALENCE_CONCURRENCY": "1",
                    **environment,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                # The tests may run under nohup, which makes child processes ignore SIGHUP.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
            )
        self.client = httpx.Client(timeout=10, trust_env=False)

    def ready(self) -> Self:
        until(self._healthy, timeout=READY, what=f"answers; {self.output.read_text()}")
        self.client.base_url = httpx.URL(self.url)
        return self

    @property
    def url(self) -> str:
        return str(json.loads(self.lock.read_text())["url"])

    def _healthy(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        try:
            return httpx.get(f"{self.url}/health", trust_env=False).status_code == 200
        except (httpx.TransportError, OSError, ValueError):
            return False

    def pid(self, name: str) -> int:
        """The recorded pid of `postgres/server`, `valkey/server` or `worker/worker`."""
        record = self.home / f"{name}.json"
        return int(
            json.loads(until(lambda: record.exists() and record.read_text(), timeout=10))["pid"]
        )

    def everything(self) -> list[psutil.Process]:
        """All processes below the launcher, once the worker has its pool."""
        worker = psutil.Process(self.pid("worker/worker"))
        until(worker.children, timeout=30, what="the worker's pool")
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOPPED)

    def __enter__(self) -> Self:
        return self.ready()

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process.poll() is None:
            assert 0 == self.end(signal.SIGTERM)

    def login(self) -> None:
        self.client.post("/api/v1/auth/register", json={**USER, "email": "grace@example.com"})
        answer = self.client.post("/api/v1/auth/login", data=USER)
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def submit(self, texts: list[str]) -> str:
        answer = self.client.post("/api/v1/sentiment/analyze/batch", json={"texts": texts})
        assert 202 == answer.status_code
        return str(answer.json()["task_id"])

    def completed(self, task_id: str) -> dict[str, Any] | None:
        task = self.client.get(f"/api/v1/sentiment/task/{task_id}").json()
        return dict(task) if task["status"] == "completed" else None
