"""Valence on a kind cluster: kubectl and helm as functions, clients that come through its edge."""

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
    """A command's output; what it said on its way to an error is in the assertion."""
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
    """The context that kubectl and helm act on."""
    return run("kubectl", "config", "current-context").strip()


def kubectl(*arguments: str, namespace: str = NAMESPACE, **options: Any) -> str:
    """`kubectl` in Valence's namespace."""
    return run("kubectl", "--namespace", namespace, *arguments, **options)


def get(kind: str, *arguments: str, namespace: str = NAMESPACE) -> Any:
    """Objects of the cluster as dictionaries."""
    return json.loads(kubectl("get", kind, *arguments, "--output", "json", namespace=namespace))


def helm(*arguments: str, namespace: str = NAMESPACE, **options: Any) -> str:
    """`helm` in Valence's namespace."""
    return run("helm", "--namespace", namespace, *arguments, **options)


def upgrade(*changes: str, namespace: str = NAMESPACE, release: str = "valence") -> None:
    """Change some values of the installed release, and wait until it has them."""
    flags = [part for change in changes for part in ("--set", change)]
    helm(
        *("upgrade", release, str(CHART), "--reuse-values", "--wait", "--timeout", "5m"),
        *flags,
        namespace=namespace,
    )


def pods(component: str, *, namespace: str = NAMESPACE) -> list[Object]:
    """The component's pods that are not on their way out."""
    found = get("pods", "-l", f"app.kubernetes.io/component={component}", namespace=namespace)
    return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]


def names(component: str, *, namespace: str = NAMESPACE) -> list[str]:
    """Their names."""
    return [pod["metadata"]["name"] for pod in pods(component, namespace=namespace)]


def ready(component: str, *, namespace: str = NAMESPACE) -> int:
    """How many of them are ready."""
    return sum(
        condition["type"] == "Ready" and condition["status"] == "True"
        for pod in pods(component, namespace=namespace)
        for condition in pod["status"].get("conditions", [])
    )


def sql(query: str, *, namespace: str = NAMESPACE) -> str:
    """One answer of the trial's Postgres."""
    command = ["psql", "-U", "postgres", "-d", "valence", "-Atc", query]
    return kubectl("exec", "valence-postgres-0", "--", *command, namespace=namespace).strip()


def rolled_out(kind_and_name: str, *, namespace: str = NAMESPACE) -> None:
    """Wait for a rollout's end."""
    kubectl("rollout", "status", kind_and_name, "--timeout=240s", namespace=namespace)


def until(
    condition: Callable[[], Any], *, timeout: float, what: str, interval: float = 0.5
) -> float:
    """Wait for something to become true; returns the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout, f"not within {timeout} s: {what}"
        time.sleep(interval)
    return time.monotonic() - started


def certificate(namespace: str = NAMESPACE) -> bytes:
    """The edge's self-signed certificate, which its clients take for their authority."""
    encoded = get("secret", "valence-tls", namespace=namespace)["data"]["tls.crt"]
    return base64.b64decode(encoded)


class _Edge(httpx.HTTPTransport):
    """Connects to this machine, whatever the name, and checks the certificate for the name."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = request.url.host
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


def trust() -> ssl.SSLContext:
    """Trusts the edge's certificate and nothing else."""
    return ssl.create_default_context(cadata=certificate().decode())


def edge(context: ssl.SSLContext | None = None, scheme: str = "https") -> httpx.Client:
    """A client of the public address, on connections of its own."""
    transport = _Edge(verify=context or trust(), retries=0)
    return httpx.Client(base_url=f"{scheme}://{HOST}", transport=transport, timeout=20)


class User:
    """A registered and logged-in account, and what it does through the edge."""

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
        """Hand in a batch; returns its id."""
        answer = self.client.post(
            "/api/v1/sentiment/analyze/batch", json={"texts": texts}, headers=self.headers
        )
        assert answer.status_code == 202, answer.text
        task: str = answer.json()["task_id"]
        return task

    def task(self, task_id: str) -> Object:
        """How far the batch is; a server that is away for a moment is asked again."""
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
        """The batch's last state."""
        states: list[Object] = []

        def has_ended() -> bool:
            states.append(self.task(task_id))
            return states[-1]["status"] not in {"pending", "processing"}

        until(has_ended, timeout=timeout, what=f"batch {task_id} ended; now {states[-1:]}")
        return states[-1]


class Load:
    """Requests without a pause for breath, from a few clients, while something else happens."""

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
        """Load for as long as the block runs, which begins once there are answers."""
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
    """One analyze request of that user."""
    return lambda client: client.post(
        "/api/v1/sentiment/analyze", json={"text": "I love this"}, headers=user.headers
    )


def asking_who(user: User) -> Callable[[httpx.Client], httpx.Response]:
    """One request of that user that auth serves."""
    return lambda client: client.get("/api/v1/users/me", headers=user.headers)
