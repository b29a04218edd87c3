"""Through the ingress, over HTTPS: the main journey, and what the ingress adds and rejects."""

import socket
import ssl
import time
from collections import Counter

import httpx
import pytest

from support.cluster import HOST, User, edge, trust, until, upgrade

pytestmark = pytest.mark.e2e


def test_main_journey(user: User) -> None:
    """Register, log in, analyze, batch, history, erase."""
    answer = user.analyze("I love this")
    assert answer.status_code == 200
    assert answer.json()["sentiment"] == "positive"
    started = time.monotonic()
    done = user.finished(user.submit(["good", "bad", "wonderful", "awful"]), timeout=60)
    seconds = time.monotonic() - started
    assert (done["status"], len(done["results"])) == ("completed", 4)
    history = user.client.get("/api/v1/sentiment/history", headers=user.headers).json()
    assert len(history["items"]) == 5
    # The inference role of the trial's Postgres has the right to delete.
    erased = user.client.delete("/api/v1/sentiment/history", headers=user.headers)
    assert erased.status_code == 204
    print(f"\nmain journey: a batch of 4 in {seconds:.2f} s")


def test_http_redirects_to_https() -> None:
    with edge(scheme="http") as client:
        answer = client.get("/health")
    assert answer.status_code == 301
    assert answer.headers["location"] == f"https://{HOST}/health"


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_tls_versions(version: ssl.TLSVersion, accepted: bool) -> None:
    context = trust()
    # Without this the client would reject the old version, not the ingress.
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", 443), 5) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=HOST) as secured:
                spoken = secured.version()
        except ssl.SSLError:
            spoken = None
    assert (spoken is not None) is accepted


def test_headers(client: httpx.Client) -> None:
    headers = client.get("/health").headers
    assert "max-age=31536000" in headers["strict-transport-security"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers


def test_login_rate_limit(user: User) -> None:
    """After four wrong passwords the account's limit rejects the next logins."""
    form = {"username": user.username, "password": "not this one"}
    answers = [user.client.post("/api/v1/auth/login", data=form) for _ in range(6)]
    statuses = [answer.status_code for answer in answers]
    # The login of the fixture counts, too.
    assert statuses == [401, 401, 401, 401, 429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    print(f"\nwrong logins: {statuses}")


def test_large_bodies(user: User) -> None:
    answer = user.analyze("x" * 2_000_000)
    assert answer.status_code == 413
    # A batch of the same size goes through.
    assert user.task(user.submit(["word " * 200] * 2000))["total"] == 2000


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
def test_internal_port_is_not_public(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_documentation_covers_both_services(client: httpx.Client) -> None:
    """One OpenAPI document and one page for both services."""
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/v1/auth/login", "/api/v1/sentiment/analyze"} <= set(paths)
    assert client.get("/docs").status_code == 200


def burst() -> Counter[int]:
    """Count the statuses of sixty rapid requests; 0 is a request that a reload of nginx aborted."""
    statuses: Counter[int] = Counter()
    with edge() as client:
        for _ in range(60):
            try:
                statuses[client.get("/health").status_code] += 1
            except httpx.TransportError:
                statuses[0] += 1
    return statuses


def test_general_limit() -> None:
    """With a low limit the ingress answers 429, and a second later accepts requests again."""
    counts = [Counter[int]()]

    def limited() -> bool:
        counts.append(burst())  # until nginx has loaded the new configuration
        return set(counts[-1]) == {200, 429} and counts[-1][429] >= 40

    upgrade("ingress.limits.requestsPerSecond=5", "ingress.limits.burstMultiplier=2")
    try:
        until(limited, timeout=30, what=f"only 200 and 429; {counts}")
        print(f"\n60 requests at once; 5 a second allowed, 10 at once: {dict(counts[-1])}")
        time.sleep(1)
        with edge() as client:
            assert client.get("/health").status_code == 200
    finally:
        upgrade("ingress.limits.requestsPerSecond=2000", "ingress.limits.burstMultiplier=5")
    until(lambda: set(burst()) == {200}, timeout=30, what="the tests' own limit")
