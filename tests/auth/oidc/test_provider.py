"""Providers that are down, slow, malformed or forged."""

import asyncio
import time
from typing import Any

import pytest

from support.oidc_login import (
    LOGIN,
    Browser,
    as_client,
    claims_of,
    me,
    refused,
    start,
)
from support.oidc_provider import (
    OidcProvider,
    answer_json,
)
from support.stack import Stack
from support.tokens import DROP
from valence.local.ports import free_port
from valence_auth.oidc import login_state
from valence_common.problems import Unavailable


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://elsewhere.example"},
        {"issuer": DROP},
        {"token_endpoint": "http://192.0.2.1/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": "https://user@elsewhere.example/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://elsewhere.example/\r\nX: y"},
        {"jwks_uri": "http://elsewhere.example/jwks"},
        {"jwks_uri": "https://[::1"},
        {"jwks_uri": 7},
        {"userinfo_endpoint": "http://elsewhere.example/"},
        {"too_much": "x" * 65536},
    ],
)
def test_discovery_is_validated(provider: OidcProvider, discovery: dict[str, Any]) -> None:
    """Another issuer, an endpoint without TLS, a document that is too large: 503, no redirect."""
    provider.discovery = discovery
    with pytest.raises(Unavailable):
        asyncio.run(as_client(provider).login_url(login_state.new()))


def test_secret_in_the_form(provider: OidcProvider) -> None:
    """For providers that accept it only there; a provider that accepts none is a 503."""
    method = "token_endpoint_auth_methods_supported"
    provider.discovery = {method: ["client_secret_post"]}
    assert asyncio.run(claims_of(as_client(provider), provider)).sub
    provider.discovery = {method: ["private_key_jwt"]}
    with pytest.raises(Unavailable):
        asyncio.run(claims_of(as_client(provider), provider))


REDIRECT = (302, {"Location": "/token?again=1"}, b"")


FAULTS = [
    REDIRECT,
    answer_json({}, 500),
    answer_json({"id_token": 7}),
    answer_json("x" * 65536),
    (200, {"Content-Type": "application/json"}, b"[" * 5000),
    (200, {}, b"\xff"),
    (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"),
    (400, {}, b"<html>"),
]


@pytest.mark.parametrize("path", ["/token", "/jwks", "/.well-known/openid-configuration"])
@pytest.mark.parametrize(
    "fault",
    FAULTS,
    ids=["redirect", "500", "odd", "huge", "deep", "no-utf-8", "packed", "html"],
)
def test_malformed_responses_are_503(provider: OidcProvider, path: str, fault: Any) -> None:
    """From any endpoint; redirects are not followed, and large bodies are not read."""
    provider.answers[path] = fault

    async def work() -> None:
        with pytest.raises(Unavailable):
            await claims_of(as_client(provider), provider)

    asyncio.run(work())
    assert provider.requests[-1] == path


@pytest.mark.parametrize("dripping", [False, True], ids=["silent", "dripping"])
def test_slow_provider_is_503_in_time(
    provider: OidcProvider, browser: Browser, *, dripping: bool
) -> None:
    """The service gives up after five seconds, and works once the provider does."""
    way = browser.at_provider()
    if dripping:
        provider.dripping = {"/token"}
    else:
        provider.answers["/token"] = None
    started = time.monotonic()
    answer = browser.get(way)
    assert time.monotonic() - started < 6
    refused(answer, 503, "The service is temporarily unavailable")
    assert "Retry-After" in answer.headers
    provider.dripping, provider.answers = set(), {}
    me(browser, browser.log_in())


def test_service_starts_without_the_provider(valence: Stack, provider: OidcProvider) -> None:
    """A provider that is down affects only its own logins."""
    service = start(valence, f"http://127.0.0.1:{free_port()}")
    with Browser(valence, service) as browser:
        answer = browser.get(LOGIN)
        refused(answer, 503, "The service is temporarily unavailable")
        assert "Retry-After" in answer.headers
        answer = browser.post("/api/v1/auth/login", data={"username": "no", "password": "body"})
        assert 401 == answer.status_code
    assert 0 == service.stop()
