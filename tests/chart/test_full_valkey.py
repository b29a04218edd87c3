"""The Valkey of a trial, with the configuration that the chart renders, when its memory is full."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from support.chart import TRIAL, find_object, objects
from support.ports import own_port
from support.waiting import until
from valence.local.binaries import find_valkey
from valence_common.celery_app import QUEUE

QUEUED = 50
FULL = {**TRIAL, "trial": {"enabled": True, "valkey": {"maxMemory": "4mb"}}}


@contextlib.contextmanager
def served(configuration: str, folder: Path) -> Iterator["redis.Redis"]:
    """Run a server with this configuration, with local paths and a free port."""
    port = own_port()
    secrets = folder / "auth.conf"
    secrets.write_text(f"requirepass secret\nbind 127.0.0.1\nport {port}\n")
    local = {"dir /data": f"dir {folder}", "/etc/valkey/secret/auth.conf": str(secrets)}
    for in_pod, path in local.items():
        assert in_pod in configuration
        configuration = configuration.replace(in_pod, path)
    file = folder / "valkey.conf"
    file.write_text(configuration)
    process = subprocess.Popen([str(find_valkey()), str(file)], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, password="secret", decode_responses=True) as client:
            until(lambda: _answers(client), timeout=20, what="valkey answers")
            yield client
    finally:
        process.kill()
        process.wait()


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False


def fill(client: "redis.Redis") -> None:
    """Set more keys than there is memory for, with an expiry, like those of rate limits."""
    for n in range(1000):
        client.set(f"valence:rate:{n}", "x" * 10_000, ex=60)


def test_case_028_full_valkey_of_a_trial_keeps_the_queue(tmp_path: Path) -> None:
    """Writes are rejected, and nothing in the queue was evicted."""
    configuration = find_object(objects(FULL), "ConfigMap", "valence-valkey")["data"]["valkey.conf"]
    with served(configuration, tmp_path) as client:
        client.rpush(QUEUE, *(f"{n}" + "y" * 1000 for n in range(QUEUED)))
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            fill(client)
        assert QUEUED == client.llen(QUEUE)
        assert 0 == client.info("stats")["evicted_keys"]
        # A worker can still take a message from the queue, which frees memory.
        assert "0" == client.lpop(QUEUE).rstrip("y")


def test_case_028_control_another_policy_loses_the_queue(tmp_path: Path) -> None:
    """With `allkeys-lru` the same load empties the queue without an error."""
    configuration = find_object(objects(FULL), "ConfigMap", "valence-valkey")["data"]["valkey.conf"]
    with served(configuration.replace("noeviction", "allkeys-lru"), tmp_path) as client:
        client.rpush(QUEUE, *(f"{n}" + "y" * 1000 for n in range(QUEUED)))
        fill(client)
        assert 0 == client.llen(QUEUE)
