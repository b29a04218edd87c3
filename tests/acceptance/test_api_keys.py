"""Reliability case 96: API keys from creation to revocation, on every replica."""

import time
import uuid
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from support.invariants import CheckedClient
from support.keys import KEYS, make, shown
from support.rows import query
from support.servers import Servers
from support.stack import Service, Stack
from support.waiting import until
from valence_common import api_keys
from valence_common.models import Base

ME = "/api/v1/users/me"
ANALYZE = "/api/v1/sentiment/analyze"
HISTORY = "/api/v1/sentiment/history"
MODELS = "/api/v1/models"
BODY = {"text": "I love this product!"}
REVOKED_WITHIN = 5.0


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that can be frozen, and two replicas of inference."""
    folder = tmp_path_factory.mktemp("keys")
    with Servers.started(folder, auth={}, inference={}) as servers:
        servers.stack.start("inference")
        yield servers


def ask(service: Service, method: str, path: str, key: str, **options: Any) -> httpx.Response:
    """Ask one replica with a key."""
    headers = {"X-API-Key": key}
    return httpx.request(
        method, service.url + path, headers=headers, timeout=20, trust_env=False, **options
    )


def statuses(stack: Stack, key: str) -> list[int]:
    """What each replica says to a key."""
    return [
        ask(service, "POST", ANALYZE, key, json=BODY).status_code
        for service in stack.running("inference")
    ]


def refused_everywhere(stack: Stack, key: str) -> None:
    """Every replica refuses the key within the five seconds, and goes on doing so."""
    until(lambda: [401, 401] == statuses(stack, key), timeout=REVOKED_WITHIN)
    assert [401, 401] == statuses(stack, key)


def with_checksum(body: str) -> str:
    return f"{body}{zlib.crc32(body.encode()):08x}"


def changed(key: str) -> dict[str, str]:
    """Keys that are not: by what is wrong with them."""
    digit = "0" if key[40] != "0" else "1"
    other, _ = api_keys.make(uuid.uuid4())
    return {
        "truncated": key[:-1],
        "without checksum": key[:-8],
        "wrong checksum": key[:-1] + ("0" if key[-1] != "0" else "1"),
        "mistyped": key[:40] + digit + key[41:],
        "upper case": key.upper(),
        "prefix": f"sk_{key[3:]}",
        "wrong secret": with_checksum(key[:40] + digit + key[41:-8]),
        "unknown id": other,
        "long": key + "0" * 10_000,
        "nothing": "",
        "only a prefix": "vl_",
    }


def test_case_096_a_key_is_shown_once_and_used(checked: CheckedClient, replicas: Stack) -> None:
    """Made, used as header and as bearer on both replicas, dated, listed without its secret."""
    account = replicas.account()
    made = make(checked, account, per_minute=600)
    assert made["key"].startswith(f"vl_{uuid.UUID(made['id']).hex}_")
    assert (["analyze", "batch", "history"], None) == (made["scopes"], made["last_used_at"])
    assert [200, 200] == statuses(replicas, made["key"])
    for headers in ({"X-API-Key": made["key"]}, {"Authorization": f"Bearer {made['key']}"}):
        for path in (HISTORY, MODELS):
            assert 200 == checked.request("GET", path, headers=headers).status_code
    assert 2 == len(checked.request("GET", HISTORY, headers=account.headers).json()["items"])

    def listed() -> dict[str, Any]:
        (item,) = checked.request("GET", KEYS, headers=account.headers).json()["items"]
        return dict(item)

    until(lambda: listed()["last_used_at"], timeout=10, what="last_used_at")
    expected = {name: value for name, value in made.items() if name not in {"key", "last_used_at"}}
    assert expected == {n: v for n, v in listed().items() if n != "last_used_at"}


def test_case_096_a_revoked_key_ends_everywhere(checked: CheckedClient, replicas: Stack) -> None:
    """Within five seconds on replicas that know the key well; a second time it is unknown."""
    account, key = replicas.account(), None
    key = make(checked, account)
    assert [200, 200] == statuses(replicas, key["key"])
    path = f"{KEYS}/{key['id']}"
    assert 204 == checked.request("DELETE", path, headers=account.headers).status_code
    refused_everywhere(replicas, key["key"])
    gone = checked.request("DELETE", path, headers=account.headers)
    foreign = make(checked, replicas.account())
    for wanted in (foreign["id"], uuid.uuid4()):
        for method, tail in (("DELETE", ""), ("POST", "/rotate")):
            answer = checked.request(method, f"{KEYS}/{wanted}{tail}", headers=account.headers)
            assert (404, gone.json()["detail"]) == (answer.status_code, answer.json()["detail"])
    assert [200, 200] == statuses(replicas, foreign["key"])


def test_case_096_a_rotated_key_ends_and_goes_on(checked: CheckedClient, replicas: Stack) -> None:
    """The new key works at once; the old one ends, or has its grace and no more."""
    account = replicas.account()
    old = make(checked, account, scopes=["analyze"])
    assert [200, 200] == statuses(replicas, old["key"])
    path = f"{KEYS}/{old['id']}/rotate"
    new = shown(checked, checked.request("POST", path, headers=account.headers))
    assert [200, 200] == statuses(replicas, new["key"])
    assert (old["name"], old["scopes"]) == (new["name"], new["scopes"])
    refused_everywhere(replicas, old["key"])
    path = f"{KEYS}/{new['id']}/rotate?grace_seconds=4"
    newest = shown(checked, checked.request("POST", path, headers=account.headers))
    rotated_at = time.monotonic()
    assert [200, 200] == statuses(replicas, new["key"])
    assert [200, 200] == statuses(replicas, newest["key"])
    until(lambda: [401, 401] == statuses(replicas, new["key"]), timeout=4 + REVOKED_WITHIN)
    assert time.monotonic() - rotated_at > 3
    assert [200, 200] == statuses(replicas, newest["key"])
    for wrong in (-1, 86_401, "x"):
        path = f"{KEYS}/{newest['id']}/rotate?grace_seconds={wrong}"
        assert 422 == checked.request("POST", path, headers=account.headers).status_code


def test_case_096_new_keys_have_a_limit(checked: CheckedClient, replicas: Stack) -> None:
    """Each key that ends is remembered by every process: one account cannot fill them."""
    account, other = replicas.account(), replicas.account()
    answer = checked.request("POST", KEYS, json={"name": "k"}, headers=account.headers)
    made = 0
    while answer.status_code == 201 and made < 150:
        key_id, made = shown(checked, answer)["id"], made + 1
        answer = checked.request("POST", f"{KEYS}/{key_id}/rotate", headers=account.headers)
    assert 429 == answer.status_code
    assert made >= 100
    assert '"api-keys";r=0' in answer.headers["ratelimit"]
    refused = checked.request("POST", KEYS, json={"name": "k"}, headers=account.headers)
    assert 429 == refused.status_code
    make(checked, other)


def test_case_096_a_key_expires(checked: CheckedClient, replicas: Stack) -> None:
    """At its time, on replicas that have it in memory; then it cannot be rotated."""
    account = replicas.account()
    end = datetime.now(UTC) + timedelta(seconds=3)
    key = make(checked, account, expires_at=end.isoformat())
    assert [200, 200] == statuses(replicas, key["key"])
    until(lambda: [401, 401] == statuses(replicas, key["key"]), timeout=3 + REVOKED_WITHIN)
    assert datetime.now(UTC) >= end
    path = f"{KEYS}/{key['id']}/rotate"
    assert 409 == checked.request("POST", path, headers=account.headers).status_code


def test_case_096_a_disabled_users_key_rests(checked: CheckedClient, replicas: Stack) -> None:
    """News of the user ends what is remembered of the keys; they work again after."""
    account = replicas.account()
    key = make(checked, account)["key"]
    assert [200, 200] == statuses(replicas, key)
    for active, expected in ((False, 401), (True, 200)):
        query(
            replicas.database_url,
            "WITH changed AS (UPDATE users SET is_active = :active WHERE id = :id RETURNING id)"
            " INSERT INTO revocations (id, subject_id) SELECT :news, id FROM changed",
            active=active,
            id=account.id,
            news=uuid.uuid4(),
        )
        until(lambda e=expected: [e] * 2 == statuses(replicas, key), timeout=REVOKED_WITHIN)


def test_case_096_wrong_scope(checked: CheckedClient, replicas: Stack) -> None:
    """A key does what it is for; what is missing is named; no key manages keys or accounts."""
    account = replicas.account()
    key = make(checked, account, scopes=["history"])["key"]
    assert 200 == checked.request("GET", HISTORY, headers={"X-API-Key": key}).status_code
    for path, scope, body in (
        (ANALYZE, "analyze", BODY),
        (f"{ANALYZE}/batch", "batch", {"texts": ["fine"]}),
    ):
        answer = checked.request("POST", path, json=body, headers={"X-API-Key": key})
        assert 403 == answer.status_code
        assert f'scope="{scope}"' in answer.headers["www-authenticate"]
    for method, path in (("GET", KEYS), ("POST", KEYS), ("GET", ME), ("GET", f"{ME}/usage")):
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
            answer = checked.request(method, path, headers=headers, json={"name": "mine"})
            assert (401, "Could not validate credentials") == (
                answer.status_code,
                answer.json()["detail"],
            )
    answer = checked.request(
        "POST", KEYS, json={"name": "mine", "scopes": ["admin"]}, headers=account.headers
    )
    assert 422 == answer.status_code


def test_case_096_keys_that_are_none(checked: CheckedClient, replicas: Stack) -> None:
    """Truncated, mistyped, invented: one 401 for all, on both replicas, again and again."""
    account = replicas.account()
    key = make(checked, account)["key"]
    assert [200, 200] == statuses(replicas, key)
    for what, wrong in changed(key).items():
        for service in replicas.running("inference") * 2:
            answer = ask(service, "GET", HISTORY, wrong)
            expected = (401, "Could not validate credentials", 'Bearer error="invalid_token"')
            seen = answer.json()["detail"], answer.headers["www-authenticate"]
            assert expected == (answer.status_code, *seen), what
    assert [200, 200] == statuses(replicas, key)


@pytest.mark.faults
def test_case_096_what_needs_no_query(servers: Servers, checked_servers: CheckedClient) -> None:
    """With Postgres frozen: a bad checksum and a wrong secret are 401, a known key is known,
    and one that nobody here has seen is 503.
    """
    account = servers.stack.account()
    known, unseen = (make(checked_servers, account)["key"] for _ in range(2))
    assert [200, 200] == statuses(servers.stack, known)
    service = servers.stack.running("inference")[0]
    with servers.postgres.frozen():
        for what, wrong in changed(known).items():
            if what != "unknown id":
                started = time.monotonic()
                assert 401 == ask(service, "GET", MODELS, wrong).status_code, what
                assert time.monotonic() - started < 1, what
        assert 200 == ask(service, "GET", MODELS, known).status_code
        started = time.monotonic()
        answer = ask(service, "GET", MODELS, unseen)
        assert (503, True) == (answer.status_code, "retry-after" in answer.headers)
        assert time.monotonic() - started < 3.5
    until(lambda: 200 == ask(service, "GET", MODELS, unseen).status_code, timeout=10)


def test_case_096_no_table_holds_a_key(checked: CheckedClient, replicas: Stack) -> None:
    """In all that is stored there is neither a key nor its secret (logs: `CheckedClient`)."""
    account = replicas.account()
    made = make(checked, account)
    assert [200, 200] == statuses(replicas, made["key"])
    path = f"{KEYS}/{made['id']}/rotate"
    new = shown(checked, checked.request("POST", path, headers=account.headers))
    secrets = [part for key in (made["key"], new["key"]) for part in (key, key[36:-8], key[-8:])]
    seen = 0
    for table in Base.metadata.tables:
        for (row,) in query(replicas.database_url, f"SELECT t::text FROM {table} t"):
            seen += 1
            assert not [secret for secret in secrets if secret in row], table
    assert seen
    events = query(
        replicas.database_url,
        "SELECT action FROM audit_events WHERE actor_id = :id AND action LIKE 'key.%' ORDER BY id",
        id=account.id,
    )
    assert [("key.created",), ("key.rotated",)] == events


def test_case_096_keys_are_counted(checked: CheckedClient, replicas: Stack) -> None:
    """The fifty-first live key is refused with a sentence; pages lead through all fifty."""
    account = replicas.account()
    for _ in range(50):
        make(checked, account)
    answer = checked.request("POST", KEYS, json={"name": "more"}, headers=account.headers)
    assert 409 == answer.status_code
    assert "50 live API keys" in answer.json()["detail"]

    def page(**params: Any) -> dict[str, Any]:
        answer = checked.request("GET", KEYS, params=params, headers=account.headers)
        assert 200 == answer.status_code
        return dict(answer.json())

    first = page(limit=30)
    rest = page(limit=30, cursor=first["next_cursor"])
    assert (30, 20, None) == (len(first["items"]), len(rest["items"]), rest["next_cursor"])
    assert 50 == len({item["id"] for item in first["items"] + rest["items"]})
