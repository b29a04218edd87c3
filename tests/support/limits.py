"""Users with limits of their own, requests spread over replicas, and what their answers say."""

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.load import Timed
from support.rows import query
from support.servers import Servers
from support.stack import Account, Stack

ANALYZE = "/api/v1/sentiment/analyze"
BODY = {"text": "I love this product!"}


@contextmanager
def two_replicas(folder: Path) -> Iterator[Servers]:
    """Servers that can be taken down, and two replicas of inference.

    They wait for Redis for longer than usual: on a busy machine a quarter of a second without an
    answer is no outage, and each replica would then count by itself.
    """
    patient = {"redis_timeout_seconds": 2}
    with Servers.started(folder, auth={}, inference=patient) as servers:
        servers.stack.start("inference", **patient)
        yield servers


def limited(stack: Stack, account: Account | None = None, **limits: int) -> Account:
    """A user with limits of their own, as an administrator sets them; a new one makes no news."""
    known = account is not None
    account = account or stack.account()
    changes = ", ".join(f"{name} = :{name}" for name in limits)
    query(
        stack.database_url,
        f"WITH changed AS (UPDATE users SET {changes} WHERE id = :id RETURNING id)"
        " INSERT INTO revocations (id, subject_id) SELECT :news, id FROM changed WHERE :known",
        id=account.id,
        news=uuid.uuid4(),
        known=known,
        **limits,
    )
    return account


def requests(stack: Stack, headers: dict[str, str], count: int) -> list[httpx.Request]:
    """So many analyses, spread over the replicas."""
    urls = [service.url + ANALYZE for service in stack.running("inference")]
    return [
        httpx.Request("POST", urls[n % len(urls)], json=BODY, headers=headers) for n in range(count)
    ]


def tally(answers: list[Timed]) -> dict[int, int]:
    """How often each status came."""
    return dict(Counter(answer.status for answer in answers))


def policies(headers: httpx.Headers, field: str) -> dict[str, dict[str, int]]:
    """A field of `RateLimit` taken apart: by the limit's name its parameters."""
    parts = (part.split(";") for part in headers[field].split(", "))
    return {
        name.strip('"'): {k: int(v) for k, v in (p.split("=") for p in parameters)}
        for name, *parameters in parts
    }


def judge_keys(stack: Stack) -> None:
    """Nothing that counts is left behind without an end."""
    with stack.redis() as client:
        names = list(client.scan_iter("valence:limit:*"))
        assert names
        assert not [name for name in names if client.pttl(name) <= 0 and client.exists(name)]
