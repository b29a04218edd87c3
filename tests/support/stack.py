"""The three services as real processes over one database and one Redis."""

import contextlib
import dataclasses
import functools
import itertools
import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import redis
from passlib.hash import argon2

from support.ports import own_port
from support.rows import query
from support.waiting import until
from valence_auth import passwords
from valence_auth.app import PREFIXES
from valence_common import keyring
from valence_common.db import new_id
from valence_common.keyring import Keyring
from valence_common.models import Base
from valence_common.security import ADMIN, SCOPES, issue

PASSWORD = "correct horse battery staple"
# All clients of a test run have one address, and neither load nor a busy machine is what most tests
# are about.
GENEROUS = {
    "auth": {
        "redis_timeout_seconds": 2,
        "login_address_attempts": 1_000_000,
        "register_attempts": 1_000_000,
    },
    "inference": {
        "redis_timeout_seconds": 2,
        "plans": '{"default": {"per_minute": 60000000, "burst": 0}}',
    },
}

_ACCOUNT = """
WITH a_user AS (
  INSERT INTO users (id, username, username_key, email, email_key, password_hash, is_superuser)
  VALUES (:user, :name, :name, :email, :email, :hash, :superuser)
), a_session AS (
  INSERT INTO sessions (id, user_id, expires_at, scopes)
  VALUES (:session, :user, now() + interval '30 days', :scopes)
)
INSERT INTO refresh_tokens (id, session_id, token_hash, expires_at)
VALUES (gen_random_uuid(), :session, sha256(convert_to(:refresh, 'UTF8')),
  now() + interval '30 days')
"""

_number = itertools.count()


@functools.cache
def _password_hash() -> str:
    """The hash of `PASSWORD` as the auth service makes it; once for each test process."""
    scheme = argon2.using(
        type="ID",
        memory_cost=passwords.MEMORY_KIBIBYTES,
        time_cost=passwords.PASSES,
        parallelism=1,
    )
    return str(scheme.hash(PASSWORD))


@dataclass
class Account:
    """A user, logged in."""

    id: str
    username: str
    email: str
    token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Service:
    """One process of a service; its output goes to a file."""

    name: str
    process: subprocess.Popen[bytes]
    url: str
    internal_url: str
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self, start: int = 0) -> str:
        """What it has written, from byte `start` on."""
        with self.log.open("rb") as file:
            file.seek(start)
            return file.read().decode("utf-8", "replace")

    def wait_ready(self, timeout: float = 30) -> Self:
        until(self._is_ready, timeout=timeout, what=f"{self.name} ready; its log:\n{self.output()}")
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"{self.name} ended:\n{self.output()}"
        try:
            return httpx.get(f"{self.internal_url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, timeout: float = 15) -> int:
        """SIGTERM, as Kubernetes does it; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        """SIGKILL the service with its children: what is lost when a node dies."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@dataclass
class Stack:
    """Services that share a database, a Redis and a keyring; requests go the ingress's way."""

    folder: Path
    database_url: str
    redis_url: str
    services: list[Service] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    environment: dict[str, str] = field(default_factory=dict)
    through: Sequence[str] = ()
    """A command that runs the service's own, given as its last arguments."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.keyring = self.folder / "keyring.json"
        if not self.keyring.exists():
            self.keyring.touch(mode=0o600)
            self.keyring.write_bytes(keyring.generate())
        self.client = httpx.Client(timeout=30, trust_env=False)

    @classmethod
    @contextlib.contextmanager
    def started(
        cls, folder: Path, database_url: str, redis_url: str, **services: dict[str, Any]
    ) -> Iterator[Self]:
        """Start these services with their settings; stop them at the end."""
        stack = cls(folder, database_url, redis_url)
        try:
            stack.start_all(services)
            yield stack
        finally:
            stack.close()

    @contextlib.contextmanager
    def beside(self, **services: dict[str, Any]) -> Iterator[Self]:
        """Another stack over the same servers, keyring and auth: with these services of its own."""
        other = dataclasses.replace(self, services=self.running("auth"))
        try:
            other.start_all(services)
            yield other
        finally:
            other.services = [s for s in other.services if s not in self.services]
            other.close()

    def start_all(self, services: Mapping[str, dict[str, Any]]) -> None:
        """Start them side by side."""
        started = [self.start(name, ready=False, **more) for name, more in services.items()]
        for service in started:
            service.wait_ready()

    def start(self, name: str, *, ready: bool = True, module: str = "", **settings: Any) -> Service:
        """Start one process of a service, or of `module` in its place; settings by field name."""
        port, internal = own_port(), own_port()
        values: dict[str, Any] = {
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "internal_port": internal,
            **GENEROUS.get(name, {}),
            **settings,
        }
        if name != "batch_worker":
            values = {"port": port, "jwt_keyring_file": self.keyring, **values}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VALENCE_")}
        environment |= self.environment
        environment |= {f"VALENCE_{k.upper()}": str(v) for k, v in values.items()}
        log = self.folder / f"{name}-{next(_number)}.log"
        if name == "batch_worker":
            metrics = log.with_suffix(".metrics")
            metrics.mkdir()
            environment.setdefault("PROMETHEUS_MULTIPROC_DIR", str(metrics))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.through, sys.executable, "-m", module or f"valence_{name}"],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        url, internal_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{internal}"
        service = Service(name, process, url, internal_url, log)
        self.services.append(service)
        return service.wait_ready() if ready else service

    def stop_workers(self) -> None:
        """Kill every worker."""
        for worker in self.running("batch_worker"):
            worker.kill()

    def reset(self) -> None:
        """Forget what a module of tests did: its workers, its rows, what waits in Redis."""
        self.stop_workers()
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
        query(self.database_url, f"TRUNCATE {tables}")
        self.flush()

    def running(self, name: str) -> list[Service]:
        """The processes of a service that have not ended, oldest first."""
        return [s for s in self.services if s.name == name and s.process.poll() is None]

    def url(self, path: str) -> str:
        """Where the ingress sends a path."""
        to_auth = any(path == p or path.startswith(f"{p}/") for p in PREFIXES)
        return self.running("auth" if to_auth else "inference")[0].url + path

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, self.url(path), **options)

    def get(self, path: str, account: Account | None = None, **options: Any) -> httpx.Response:
        headers = account.headers if account else {}
        return self.request("GET", path, headers=headers, **options)

    def post(self, path: str, account: Account | None = None, **options: Any) -> httpx.Response:
        headers = (account.headers if account else {}) | options.pop("headers", {})
        return self.request("POST", path, headers=headers, **options)

    def register(self, username: str | None = None, password: str = PASSWORD) -> httpx.Response:
        name = username or f"user-{uuid.uuid4().hex[:12]}"
        body = {"username": name, "email": f"{name}@example.com", "password": password}
        return self.post("/api/v1/auth/register", json=body)

    def login(self, username: str, password: str = PASSWORD) -> httpx.Response:
        form = {"username": username, "password": password}
        return self.post("/api/v1/auth/login", data=form)

    def account(self, *, superuser: bool = False) -> Account:
        """Create a user with a login session by their rows, without hashing and throttling.

        `sign_up` does the same through the auth service, for tests of just that.
        """
        user_id, session_id = new_id(), new_id()
        name = f"user-{user_id.hex}"
        scopes = [scope for scope in SCOPES if superuser or scope != ADMIN]
        keys = Keyring(self.keyring)
        access = issue(
            keys, user_id=user_id, session_id=session_id, scopes=scopes, lifetime_seconds=1800
        )
        account = Account(
            str(user_id), name, f"{name}@example.com", access, secrets.token_urlsafe(32)
        )
        query(
            self.database_url,
            _ACCOUNT,
            user=user_id,
            name=name,
            email=account.email,
            hash=_password_hash(),
            superuser=superuser,
            session=session_id,
            scopes=scopes,
            refresh=account.refresh_token,
        )
        self.secrets |= {PASSWORD, access, account.refresh_token}
        return account

    def sign_up(self) -> Account:
        """Register a new user and log in, as a client does it."""
        user = self.register()
        assert user.status_code == 201, user.text
        tokens = self.login(user.json()["username"])
        assert tokens.status_code == 200, tokens.text
        access, refresh = tokens.json()["access_token"], tokens.json()["refresh_token"]
        self.secrets |= {PASSWORD, access, refresh}
        names = user.json()
        return Account(names["id"], names["username"], names["email"], access, refresh)

    def submit(self, account: Account, texts: list[str]) -> str:
        """Send a batch; returns its task id."""
        answer = self.post("/api/v1/sentiment/analyze/batch", account, json={"texts": texts})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def task(self, account: Account, task_id: str) -> dict[str, Any]:
        answer = self.get(f"/api/v1/sentiment/task/{task_id}", account)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def finish(self, account: Account, task_id: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until a batch has ended; returns the task."""
        until(
            lambda: self.task(account, task_id)["status"] not in {"pending", "processing"},
            timeout=timeout,
            what=f"batch {task_id} ended",
        )
        return self.task(account, task_id)

    def canary(self) -> None:
        """Prove that all of it works: register, login, analyze, a batch of two."""
        account = self.sign_up()
        body = {"text": "I love this product!"}
        answer = self.post("/api/v1/sentiment/analyze", account, json=body)
        assert (200, "positive") == (answer.status_code, answer.json()["sentiment"])
        if self.running("batch_worker"):
            task = self.finish(account, self.submit(account, ["good", "bad"]))
            assert "completed" == task["status"]

    def redis(self) -> "redis.Redis":
        """A client of the stack's Redis that sees strings."""
        return redis.Redis.from_url(self.redis_url, decode_responses=True)

    def flush(self) -> None:
        """Empty the stack's Redis database."""
        with self.redis() as client:
            client.flushdb()

    def close(self) -> None:
        """End every process."""
        self.client.close()
        for service in self.services:
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        for service in self.services:
            try:
                service.process.wait(10)
            except subprocess.TimeoutExpired:
                service.kill()
