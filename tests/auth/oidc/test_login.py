"""Login through an OpenID provider, in full and under attack."""

import json
import uuid
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from support.oidc_login import (
    CALLBACK,
    COOKIE,
    LOGIN,
    Browser,
    me,
    not_believed,
    refused,
    start,
)
from support.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    OidcProvider,
)
from support.ports import own_port
from support.rows import query
from support.stack import Service, Stack
from support.waiting import until
from valence_common import keyring


def test_first_login_creates_an_account(
    provider: OidcProvider, browser: Browser, database_url: str
) -> None:
    """The flow with a cookie jar ends with the tokens of a new account."""
    provider.person |= {"preferred_username": f"Ada Löve {uuid.uuid4().hex[:6]}"}
    started = browser.begin()
    sent = parse_qs(urlsplit(started.headers["Location"]).query)
    assert ["S256"] == sent["code_challenge_method"]
    assert ["openid email profile"] == sent["scope"]
    cookie = started.headers["Set-Cookie"]
    assert {"HttpOnly", "Max-Age=600", "Path=/", "SameSite=lax"} == set(cookie.split("; ")[1:])
    assert "no-store" == started.headers["Cache-Control"]
    back = browser.get(started.headers["Location"]).headers["Location"]
    answer = browser.keep(browser.get(back))
    user = me(browser, answer)
    assert provider.person["email"] == user["email"]
    assert user["username"].startswith("Ada-L-ve-")
    assert {"access_token", "token_type", "expires_in", "refresh_token"} == set(answer.json())
    assert "no-store" == answer.headers["Cache-Control"]
    assert COOKIE not in browser.cookies
    rows = query(
        database_url,
        "SELECT action, details FROM audit_events WHERE actor_id = :id ORDER BY id",
        id=user["id"],
    )
    assert ["account.registered", "identity.linked", "session.opened"] == [
        action for action, _ in rows
    ]
    [(stored,)] = query(
        database_url, "SELECT password_hash FROM users WHERE id = :id", id=user["id"]
    )
    assert stored is None


def test_refresh_token_works(provider: OidcProvider, browser: Browser) -> None:
    """A session from the provider is like any other."""
    refresh_token = browser.log_in().json()["refresh_token"]
    answer = browser.post("/api/v1/auth/refresh", json={"refresh_token": refresh_token})
    me(browser, browser.keep(answer))


NOT_STARTED = "This login was not started in this browser, or too long ago; start again"


def test_state_must_be_this_browsers(
    provider: OidcProvider, browser: Browser, valence: Stack, auth: Service
) -> None:
    """Another browser's link, or a missing or changed cookie or state, logs nobody in."""
    way = browser.at_provider()
    with Browser(valence, auth) as victim:
        refused(victim.get(way), 400, NOT_STARTED)
        victim.begin()
        refused(victim.get(way), 400, NOT_STARTED)
    refused(browser.get(way.replace("state=", "state=x")), 400, NOT_STARTED)
    value = browser.cookies[COOKIE]
    kid = value.partition(".")[0]
    for changed in (value[:-2] + "AA", value[1:], "x" * 5000, ".", "a.b", f"{kid}.", f"{kid}.é"):
        headers = {"Cookie": f"{COOKIE}={changed}".encode()}
        refused(httpx.get(way, headers=headers, trust_env=False), 400, NOT_STARTED)
    me(browser, browser.keep(browser.get(way)))


def test_code_works_once(provider: OidcProvider, browser: Browser) -> None:
    """A repeated callback, with its cookie, is rejected."""
    way = browser.at_provider()
    headers = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    assert 200 == browser.keep(browser.get(way)).status_code
    not_believed(httpx.get(way, headers=headers, trust_env=False))


def test_stolen_code_is_rejected(
    provider: OidcProvider, browser: Browser, valence: Stack, auth: Service
) -> None:
    """PKCE: a code for one browser does not work in another's login."""
    stolen = parse_qs(urlsplit(browser.at_provider()).query)["code"][0]
    with Browser(valence, auth) as thief:
        own = parse_qs(urlsplit(thief.at_provider()).query)
        not_believed(thief.get(CALLBACK, params={"state": own["state"][0], "code": stolen}))


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"error": "access_denied"}, 401),
        ({"error": "SECRETIVE"}, 401),
        ({"error": "server_error", "code": "x"}, 401),
        ({"code": "x", "iss": "https://elsewhere.example"}, 401),
        ({"code": "x"}, 401),
        ({"code": "\0"}, 401),
        ({"code": "\U0001f600 +%&"}, 401),
        ({}, 400),
        ({"code": ""}, 422),
        ({"code": "x" * 4097}, 422),
        ({"error": "x" * 257}, 422),
    ],
)
def test_malformed_callbacks(
    provider: OidcProvider, browser: Browser, parameters: dict[str, str], status: int
) -> None:
    """With the right state, anything malformed logs nobody in and is no error."""
    state = parse_qs(urlsplit(browser.begin().headers["Location"]).query)["state"][0]
    assert status == browser.get(CALLBACK, params={"state": state} | parameters).status_code


def test_other_callback_parameters_are_ignored(provider: OidcProvider, browser: Browser) -> None:
    """Providers add their own; an `iss` must be that of the provider (RFC 9207)."""
    provider.authorized = {"session_state": "x", "iss": provider.issuer, "scope": "openid"}
    me(browser, browser.log_in())
    provider.authorized = {"iss": "https://elsewhere.example"}
    not_believed(browser.log_in())


def test_rotation_between_the_steps(
    provider: OidcProvider, browser: Browser, valence: Stack, auth: Service
) -> None:
    """A login that started under the old key ends under the new one; a dropped key ends it."""
    ways = []
    for _ in range(2):
        way = browser.at_provider()
        ways.append((way, {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}))
    old, new = json.loads(valence.keyring.read_bytes()), json.loads(keyring.generate())
    for keys, (way, headers), status in (
        (old["keys"] + new["keys"], ways[0], 200),
        (new["keys"], ways[1], 400),
    ):
        reloads = auth.output().count("keyring_reloaded")
        valence.keyring.write_text(json.dumps({"active": new["active"], "keys": keys}))
        until(
            lambda: browser.begin() and auth.output().count("keyring_reloaded") > reloads,  # noqa: B023
            timeout=10,
            interval=0.2,
        )
        answer = browser.keep(httpx.get(way, headers=headers, trust_env=False))
        assert status == answer.status_code, answer.text


def test_steps_are_throttled(
    valence: Stack, provider: OidcProvider, redis_url: str, auth: Service
) -> None:
    """Each step has its own limit, charged before any request to the provider."""
    elsewhere = f"{redis_url.rpartition('/')[0]}/15"
    service = start(valence, provider.issuer, redis_url=elsewhere, register_attempts=3)
    with Browser(valence, service) as browser:
        provider.requests.clear()
        first = [browser.get(LOGIN) for _ in range(5)]
        assert [302] * 3 + [429] * 2 == [answer.status_code for answer in first]
        assert int(first[-1].headers["Retry-After"]) > 0
        assert {"ratelimit", "ratelimit-policy"} <= set(first[0].headers)
        statuses = [browser.get(CALLBACK, params={"state": "x"}).status_code for _ in range(5)]
        assert [400] * 3 + [429] * 2 == statuses
        assert 1 == len(provider.requests)
    assert 0 == service.stop()


def test_cookie_over_tls_is_bound_to_the_host(valence: Stack, provider: OidcProvider) -> None:
    """With an https callback, no other site of the domain can set or read the cookie."""
    port = own_port()
    service = valence.start(
        "auth",
        ready=False,
        port=port,
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_redirect_url=f"https://valence.example{CALLBACK}",
    ).wait_ready()
    answer = httpx.get(f"http://127.0.0.1:{port}{LOGIN}", trust_env=False)
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-valence-oidc=")
    assert {"HttpOnly", "Max-Age=600", "Path=/", "SameSite=lax", "Secure"} == set(
        cookie.split("; ")[1:]
    )
    assert 0 == service.stop()


def test_without_a_provider_the_routes_are_unknown(stack: Stack) -> None:
    """Every request to them is a 404."""
    for path in (LOGIN, CALLBACK, f"{CALLBACK}?state=x&code=y"):
        refused(stack.get(path), 404, "Not found")
