"""One run: a large batch and some small ones, two workers of two processes, a fault a second."""

import random
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.clients import Clients
from chaos.faults import Faults
from chaos.verdict import COUNT_EXECUTIONS, Sent, Verdict, judge
from support import faulty_model
from support.rows import query
from support.servers import Servers

KINDS = 7
GRACE_SECONDS = 60


@dataclass(frozen=True)
class Size:
    """How large a run is; chunks take `seconds` each, so that faults land in the middle."""

    texts: int
    small_texts: int
    chunk_texts: int
    seconds: float
    most_faults: int
    pause: float
    end_timeout: float


LONG: Final = Size(100_000, 2000, 500, 0.8, most_faults=84, pause=1.0, end_timeout=600)
SHORT: Final = Size(6000, 300, 100, 0.3, most_faults=KINDS, pause=0.6, end_timeout=180)


def run(size: Size, seed: int, folder: Path) -> Verdict:
    """Everything from empty servers to the verdict."""
    started = time.monotonic()
    worker_settings = {
        "model_dir": faulty_model.write(folder / "odd-1", seconds=size.seconds),
        "concurrency": 2,
        "lease_seconds": 5,
        "sweep_seconds": 0.5,
        "soft_shutdown_seconds": 3,
    }
    web_settings = {"chunk_texts": size.chunk_texts, "database_pool_size": 4}
    with Servers.started(folder, auth={}) as servers:
        query(servers.postgres.url(), COUNT_EXECUTIONS)
        servers.stack.environment |= faulty_model.ENVIRONMENT
        clients = Clients(servers.stack)
        faults = Faults(servers, random.Random(seed), worker_settings, web_settings, lambda _: None)
        services = [start() for start in (faults.start_web, faults.start_worker) for _ in range(2)]
        for service in services:
            service.wait_ready(timeout=120)
        sent, done = _strike(size, seed, faults, clients)
        _await_end(servers, size, clients)
        for worker in faults.leaving:
            try:
                worker.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                clients.complaints.append("a worker that was told to end did not")
        if len(done) < KINDS:
            clients.complaints.append(f"only {len(done)} of {KINDS} kinds of fault came")
        verdict = Verdict(
            seed,
            done,
            time.monotonic() - started,
            complaints=list(dict.fromkeys(clients.complaints)),
        )
        return judge(servers.postgres.url(), sent, verdict)


def _texts(count: int) -> list[str]:
    return [f"text {n} is {'good' if n % 2 else 'bad'}" for n in range(count)]


def _strike(
    size: Size, seed: int, faults: Faults, clients: Clients
) -> tuple[list[Sent], Counter[str]]:
    """Send the large batch, then a fault after the other until it is done or they are enough."""
    servers = faults.servers
    accounts = [servers.stack.account() for _ in range(1 + -(-size.most_faults // KINDS))]
    large = accounts.pop()
    small = _texts(size.small_texts)
    enough = threading.Event()
    with ThreadPoolExecutor(len(accounts) + 1) as pool:
        sent = [clients.send(large, _texts(size.texts), seed)]
        [task_id] = sent[0].task_ids
        watching = pool.submit(clients.watch, large, task_id, enough)
        sending = []

        def accept(url: str) -> None:
            account = accounts.pop()
            sending.append(pool.submit(clients.send, account, small, len(accounts), url))

        faults.accept = accept
        done: Counter[str] = Counter()
        for name, strike in faults.sequence():
            if done.total() >= size.most_faults or (
                done.total() >= KINDS and _ended(servers, task_id)
            ):
                break
            time.sleep(faults.choice.uniform(0.5, 1.5) * size.pause)
            strike()
            done[name] += 1
        sent += [each.result() for each in sending]
        enough.set()
        watching.result()
    return sent, done


def _ended(servers: Servers, task_id: str) -> bool:
    finished = "SELECT 1 FROM batches WHERE id = :id AND finished_at IS NOT NULL"
    return bool(query(servers.postgres.url(), finished, id=task_id))


def _await_end(servers: Servers, size: Size, clients: Clients) -> None:
    unfinished = "SELECT count(*) FROM batches WHERE finished_at IS NULL"
    ends = time.monotonic() + size.end_timeout
    while query(servers.postgres.url(), unfinished) != [(0,)]:
        if time.monotonic() > ends:
            clients.complaints.append(f"not done {size.end_timeout:.0f} s after the last fault")
            return
        time.sleep(0.5)
