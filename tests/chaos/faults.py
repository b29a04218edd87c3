"""The faults, each by a name; what is killed is replaced at once, as Kubernetes would do it."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr

from support.rows import query
from support.servers import Servers
from support.stack import Service
from support.waiting import until
from valence_common.celery_app import Doorbell

DOUBLED_MESSAGES = 15
AT_WORK_WITHIN = 20

_AT_WORK = "SELECT 1 FROM batch_chunks WHERE state = 'running' AND lease_until > now() LIMIT 1"


def _is_ready(worker: Service) -> bool:
    try:
        return httpx.get(f"{worker.internal_url}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Faults:
    """What can be done to the servers; `accept` sends a batch to the web process with that URL."""

    servers: Servers
    choice: random.Random
    worker_settings: dict[str, Any]
    web_settings: dict[str, Any]
    accept: Callable[[str], None]
    leaving: list[Service] = field(default_factory=list)

    def sequence(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """All kinds in a random order, then all in another, without end."""
        kinds = {
            "worker killed": self.kill_worker,
            "worker told to end": self.end_worker,
            "web killed mid-accept": self.kill_web_mid_accept,
            "FLUSHALL": self.servers.valkey.flush,
            "Redis killed": self.kill_redis,
            "sessions terminated": self.servers.postgres.terminate_sessions,
            "messages doubled": self.double_messages,
        }
        while True:
            yield from self.choice.sample(sorted(kinds.items()), len(kinds))

    def start_worker(self) -> Service:
        return self.servers.stack.start("batch_worker", ready=False, **self.worker_settings)

    def start_web(self) -> Service:
        return self.servers.stack.start("inference", ready=False, **self.web_settings)

    def kill_worker(self) -> None:
        self._some_worker().kill()
        self.start_worker()

    def end_worker(self) -> None:
        worker = self._some_worker()
        worker.process.terminate()
        self.leaving.append(worker)
        self.start_worker()

    def _some_worker(self) -> Service:
        """One that is at work, if any comes to it: one that only starts is struck for nothing."""
        url = self.servers.postgres.url()
        with contextlib.suppress(AssertionError):
            until(lambda: query(url, _AT_WORK), timeout=AT_WORK_WITHIN)
        running = self.servers.stack.running("batch_worker")
        staying = [worker for worker in running if worker not in self.leaving]
        return self.choice.choice([w for w in staying if _is_ready(w)] or staying)

    def kill_web_mid_accept(self) -> None:
        web = self.choice.choice(self.servers.stack.running("inference"))
        self.accept(web.url)
        time.sleep(self.choice.uniform(0, 0.3))
        web.kill()
        self.start_web()

    def kill_redis(self) -> None:
        with self.servers.valkey.down():
            time.sleep(self.choice.uniform(0, 1))

    def double_messages(self) -> None:
        Doorbell(SecretStr(self.servers.valkey.url()), timeout=0.5).ring(DOUBLED_MESSAGES)
