"""The doorbell: wakes workers through Redis, and is harmless while Redis is away."""

import json
import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from support.servers import FragileValkey
from valence_common.celery_app import QUEUE, SCORE_TASK, Doorbell

MAX_SECONDS = 1.0
"""Seconds that a ring may take without Redis; its own timeout is a fifth of that."""


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FragileValkey]:
    with FragileValkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest.fixture
def doorbell(valkey: FragileValkey) -> Doorbell:
    valkey.flush()
    return Doorbell(SecretStr(valkey.url()), timeout=0.2)


def queued(valkey: FragileValkey) -> int:
    with valkey.client() as client:
        return client.llen(QUEUE)


def ring_timed(doorbell: Doorbell) -> tuple[bool, bool]:
    """Whether Redis took the message, and whether the call was short."""
    started = time.monotonic()
    sent = doorbell.ring(8)
    return sent, time.monotonic() - started < MAX_SECONDS


def test_message_names_the_task_and_nothing_else(doorbell: Doorbell, valkey: FragileValkey) -> None:
    """A message carries no text, user or batch: workers claim their work from Postgres."""
    assert doorbell.ring(1) is True
    with valkey.client() as client:
        message = json.loads(client.lindex(QUEUE, 0))
    assert SCORE_TASK == message["headers"]["task"]
    assert ("()", "{}") == (message["headers"]["argsrepr"], message["headers"]["kwargsrepr"])


def test_queued_messages_count_towards_the_limit(doorbell: Doorbell, valkey: FragileValkey) -> None:
    """However often sweepers ring without a worker, the queue stays short."""
    for _ in range(10):
        assert doorbell.ring(5, max_queued=16) is True
    assert 16 == queued(valkey)
    assert doorbell.ring(3) is True
    assert 19 == queued(valkey)


def test_doorbell_is_silent_while_redis_is_down_and_rings_after(
    doorbell: Doorbell, valkey: FragileValkey
) -> None:
    """Callers do not wait for a stopped server, and need no restart when it is back."""
    assert doorbell.ring(1) is True
    with valkey.down():
        assert [(False, True)] * 3 == [ring_timed(doorbell) for _ in range(3)]
    assert doorbell.ring(2) is True
    assert 2 == queued(valkey)


def test_doorbell_is_silent_while_redis_is_frozen_and_rings_after(
    doorbell: Doorbell, valkey: FragileValkey
) -> None:
    """A server that accepts connections and never answers costs a moment."""
    assert doorbell.ring(1) is True
    with valkey.frozen():
        assert [(False, True)] * 3 == [ring_timed(doorbell) for _ in range(3)]
    assert doorbell.ring(1) is True
