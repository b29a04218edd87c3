"""Reliability case 41: a web process is killed while it accepts a batch; the client retries."""

import random
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from support.rows import query
from support.servers import Servers
from support.stack import Account
from support.waiting import until

pytestmark = pytest.mark.faults

BATCH = "/api/v1/sentiment/analyze/batch"
TEXTS = 20_000
SEED = 41
CHUNK_TEXTS = 100
SETTINGS = {"chunk_texts": CHUNK_TEXTS}
ROWS = "id,text\n" + "".join(f'{n},"text, number {n}"\n' for n in range(TEXTS))


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers.started(
        tmp_path_factory.mktemp("servers"), auth={}, inference=SETTINGS
    ) as servers:
        yield servers


def send(servers: Servers, account: Account, key: str) -> int:
    """The status of the answer; 0 when there was none."""
    running = servers.stack.running("inference")
    headers = account.headers | {"Idempotency-Key": key, "Content-Type": "text/csv"}
    try:
        url = running[0].url + BATCH
        return httpx.post(
            url, content=ROWS, headers=headers, timeout=60, trust_env=False
        ).status_code
    except (httpx.TransportError, IndexError):
        return 0


def strike(servers: Servers, account: Account, kills: int, seed: int) -> int:
    """Kill it so often at random points of a request, which is sent again until it is taken.

    Returns how many requests the blow left without an answer.
    """
    chance = random.Random(seed)
    started = time.monotonic()
    assert 202 == send(servers, account, "first")
    usual = time.monotonic() - started
    lost = 0
    for n in range(kills):
        key = f"killed-{n}"
        got: list[int] = []
        sender = threading.Thread(
            target=lambda key=key, got=got: got.append(send(servers, account, key))
        )
        [service] = servers.stack.running("inference")
        sender.start()
        sender.join(chance.uniform(0, 1.2 * usual))
        service.kill()
        sender.join()
        lost += got == [0]
        servers.stack.start("inference", **SETTINGS)
        # Postgres may still be at the transaction of the dead: 409 until it has noticed.
        until(
            lambda key=key: send(servers, account, key) == 202,
            timeout=60,
            interval=0.2,
            what=f"{key} taken",
        )
    return lost


def judge(servers: Servers, account: Account, keys: int) -> None:
    """One batch for each key, with all of its chunks, and nothing else."""
    url = servers.postgres.url()
    named = query(
        url,
        "SELECT count(*), count(DISTINCT batch_id) FROM idempotency_keys WHERE user_id = :user",
        user=account.id,
    )
    assert [(keys, keys)] == named
    stored = query(
        url,
        "SELECT count(c.id), sum(c.size), sum(json_array_length(c.texts)),"
        " sum(json_array_length(c.rows)) FROM batches AS b"
        " LEFT JOIN batch_chunks AS c ON c.batch_id = b.id WHERE b.user_id = :user GROUP BY b.id",
        user=account.id,
    )
    assert [(TEXTS // CHUNK_TEXTS, TEXTS, TEXTS, TEXTS)] * keys == stored


def run(servers: Servers, kills: int) -> None:
    account = servers.stack.account()
    lost = strike(servers, account, kills, SEED)
    print({"seed": SEED, "kills": kills, "without an answer": lost})
    assert lost >= kills // 4, "the kills came too late to prove anything"
    judge(servers, account, kills + 1)


def test_case_041_killed_while_it_takes_a_batch(servers: Servers) -> None:
    """The short form: exactly one batch for each key, all chunks of it or none."""
    run(servers, 8)


@pytest.mark.slow_faults
def test_case_041_killed_a_hundred_times(servers: Servers) -> None:
    """The long form."""
    run(servers, 100)
