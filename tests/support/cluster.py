"""Valence on a kind cluster: kubectl and helm as functions, and clients of its public address."""

import base64
import contextlib
import json
import secrets
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "valence"
HOST = "valence.localhost"
NAMESPACE = "valence"
PASSWORD = "correct horse battery staple"

Object = dict[str, Any]


def run(
    *command: str,
    text: str | None = None,
    check: bool = True,
    seconds: float = 600,
    folder: Path = ROOT,
) -> str:
    """Return the output of a command; a failure is an assertion with its output."""
    result = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        cwd=folder,
    )
    if check:
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
    return result.stdout + (result.stderr if not check else "")


def context() -> str:
    """Return the current context of kubectl and helm."""
    return run("kubectl", "config", "current-context").strip()


def kubectl(*arguments: str, namespace: str = NAMESPACE, **options: Any) -> str:
    """Run `kubectl` in Valence's namespace."""
    return run("kubectl", "--namespace", namespace, *arguments, **options)


def get(kind: str, *arguments: str, namespace: str = NAMESPACE) -> Any:
    """Return objects of the cluster as dictionaries."""
    return json.loads(kubectl("get", kind, *arguments, "--output", "json", namespace=namespace))


def helm(*arguments: str, namespace: str = NAMESPACE, **options: Any) -> str:
    """Run `helm` in Valence's namespace."""
    return run("helm", "--namespace", namespace, *arguments, **options)


def upgrade(*changes: str, namespace: str = NAMESPACE, release: str = "valence") -> None:
    """Change values of the installed release, and wait for the rollout."""
    flags = [part for change in changes for part in ("--set", change)]
    helm(
        *("upgrade", release, str(CHART), "--reuse-values", "--wait", "--timeout", "5m"),
        *flags,
        namespace=namespace,
    )


def pods(component: str, *, namespace: str = NAMESPACE) -> list[Object]:
    """Return the pods of a component that are not terminating."""
    found = get("pods", "-l", f"app.kubernetes.io/component={component}", namespace=namespace)
    return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]


def names(component: str, *, namespace: str = NAMESPACE) -> list[str]:
    """Return the names of these pods."""
    return [pod["metadata"]["name"] for pod in pods(component, namespace=namespace)]


def ready(component: str, *, namespace: str = NAMESPACE) -> int:
    """Return how many of these pods are ready."""
    return sum(
        condition["type"] == "Ready" and condition["status"] == "True"
        for pod in pods(component, namespace=namespace)
        for condition in pod["status"].get("conditions", [])
    )


def sql(query: str, *, namespace: str = NAMESPACE) -> str:
    """Return the output of a query in the trial's Postgres."""
    command = ["psql", "-U", "postgres", "-d", "valence", "-Atc", query]
    return kubectl("exec", "valence-postgres-0", "--", *command, namespace=namespace).strip()


def rolled_out(kind_and_name: str, *, namespace: str = NAMESPACE) -> None:
    """Wait until a rollout is complete."""
    kubectl("rollout", "status", kind_and_name, "--timeout=240s", namespace=namespace)


def until(
    condition: Callable[[], Any], *, timeout: float, what: str, interval: float = 0.5
) -> float:
    """Wait until a condition is true; return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout, f"not within {timeout} s: {what}"
        time.sleep(interval)
    return time.monotonic() - started


def certificate(namespace: str = NAMESPACE) -> bytes:
    """Return the self-signed certificate of the ingress, which clients trust."""
    encoded = get("secret", "valence-tls", namespace=namespace)["data"]["tls.crt"]
    return base64.b64decode(encoded)


class _Edge(httpx.HTTPTransport):
    """Connects to this machine for every host, and checks the certificate for that host."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = request.url.host
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


def trust() -> ssl.SSLContext:
    """Return a context that trusts only the certificate of the ingress."""
    return ssl.create_default_context(cadata=certificate().decode())


def edge(context: ssl.SSLContext | None = None, scheme: str = "https") -> httpx.Client:
    """Return a client of the public address, with its own connections."""
    transport = _Edge(verify=context or trust(), retries=0)
    return httpx.Client(base_url=f"{scheme}://{HOST}", transport=transport, timeout=20)


class User:
    """A new account, logged in, and its requests to the public address."""

    def __init__(self, client: httpx.Client):
        self.client = client
        self.username = f"e2e-{secrets.token_hex(8)}"
        account = {
            "username": self.username,
            "email": f"{self.username}@example.com",
            "password": PASSWORD,
        }
        answer = client.post("/api/v1/auth/register", json=account)
        assert answer.status_code == 201, answer.text
        self.login()

    def login(self) -> None:
        """Get a new access token."""
        form = {"username": self.username, "password": PASSWORD}
        answer = self.client.post("/api/v1/auth/login", data=form)
        assert answer.status_code == 200, answer.text
        self.token = answer.json()["access_token"]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def analyze(self, text: str = "What a wonderful day") -> httpx.Response:
        return self.client.post(
            "/api/v1/sentiment/analyze", json={"text": text}, headers=self.headers
        )

    def submit(self, texts: list[str]) -> str:
        """Submit a batch; return its id."""
        answer = self.client.post(
            "/api/v1/sentiment/analyze/batch", json={"texts": texts}, headers=self.headers
        )
        assert answer.status_code == 202, answer.text
        task: str = answer.json()["task_id"]
        return task

    def task(self, task_id: str) -> Object:
        """Return the status of a batch; retry for 20 s while the service is unavailable."""
        for _ in range(40):
            with contextlib.suppress(httpx.TransportError):
                path = f"/api/v1/sentiment/task/{task_id}"
                answer = self.client.get(path, headers=self.headers)
                if answer.status_code == 200:
                    state: Object = answer.json()
                    return state
            time.sleep(0.5)
        raise AssertionError(f"no status of {task_id}: {answer.status_code} {answer.text}")

    def finished(self, task_id: str, *, timeout: float) -> Object:
        """Wait until a batch has ended, and return its status."""
        states: list[Object] = []

        def has_ended() -> bool:
            states.append(self.task(task_id))
            return states[-1]["status"] not in {"pending", "processing"}

        until(has_ended, timeout=timeout, what=f"batch {task_id} ended; now {states[-1:]}")
        return states[-1]


class Load:
    """Constant requests from a few clients while a test does something else."""

    def __init__(self, work: Callable[[httpx.Client], httpx.Response], clients: int, pause: float):
        self._work, self._pause = work, pause
        self._context = trust()
        self._stopping = threading.Event()
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def _run(self) -> None:
        with edge(self._context) as client:
            while not self._stopping.is_set():
                started = time.monotonic()
                try:
                    outcome = str(self._work(client).status_code)
                except httpx.TransportError as error:
                    outcome = type(error).__name__
                self.outcomes[outcome] += 1
                self.slowest = max(self.slowest, time.monotonic() - started)
                time.sleep(self._pause)

    @property
    def failed(self) -> Counter[str]:
        """All outcomes that are not successes."""
        return Counter({o: n for o, n in self.outcomes.items() if not o.startswith("2")})

    def __str__(self) -> str:
        return (
            f"{self.outcomes.total()} requests, {self.failed.total()} failed "
            f"{dict(self.failed)}, slowest {self.slowest:.2f} s"
        )

    @classmethod
    @contextlib.contextmanager
    def running(
        cls,
        work: Callable[[httpx.Client], httpx.Response],
        *,
        clients: int = 4,
        pause: float = 0.05,
    ) -> "Iterator[Load]":
        """Run the load during the block, which begins after the first answers."""
        load = cls(work, clients, pause)
        for thread in load._threads:
            thread.start()
        try:
            until(lambda: load.outcomes.total() > clients, timeout=30, what="first answers")
            yield load
        finally:
            load._stopping.set()
            for thread in load._threads:
                thread.join()


def analyzing(user: User) -> Callable[[httpx.Client], httpx.Response]:
    """Return an analyze request of that user."""
    return lambda client: client.post(
        "/api/v1/sentiment/analyze", json={"text": "I love this"}, headers=user.headers
    )


def reading_profile(user: User) -> Callable[[httpx.Client], httpx.Response]:
    """Return a request of that user to auth."""
    return lambda client: client.get("/api/v1/users/me", headers=user.headers)
