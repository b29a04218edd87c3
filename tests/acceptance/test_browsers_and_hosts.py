"""Browsers and hosts: which pages may call, which names are served, what every answer carries."""

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest

from support.raw import Answer, exchange, message
from support.stack import Account, Service, Stack
from valence_common.settings import SettingsError, WebSettings, load
from valence_common.web import middleware

PAGE = "https://app.example.com"
ORIGINS = f"{PAGE},http://localhost:5173"
HOSTS = "api.example.com,*.valence.test,127.0.0.1"
ME = "/api/v1/users/me"
LOGIN = "/api/v1/auth/login"
ANALYZE = "/api/v1/sentiment/analyze"
HEALTH = "/health"


@pytest.fixture(scope="module")
def guarded(stack: Stack) -> Iterator[dict[str, Service]]:
    """Both web services again, beside the shared ones and with their guards up."""
    names = ("auth", "inference")
    services = {
        name: stack.start(name, cors_origins=ORIGINS, allowed_hosts=HOSTS) for name in names
    }
    yield services
    for service in services.values():
        service.stop()


@pytest.fixture(params=["auth", "inference"])
def service(request: pytest.FixtureRequest, guarded: dict[str, Service]) -> Service:
    return guarded[request.param]


def _preflight(service: Service, path: str, origin: str, **asked: str) -> httpx.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": asked.pop("method", "POST")}
    headers |= {"Access-Control-Request-Headers": asked["headers"]} if asked else {}
    return httpx.options(service.url + path, headers=headers)


def _names(answer: httpx.Response, header: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers[header].split(",")}


@pytest.mark.parametrize("origin", ORIGINS.split(","))
def test_a_listed_page_may_ask(service: Service, origin: str) -> None:
    """A preflight needs no credential and allows what the product uses, without cookies."""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = _preflight(
            service, ME, origin, method=method, headers="authorization, content-type, x-api-key"
        )
        assert (200, origin) == (answer.status_code, answer.headers["access-control-allow-origin"])
        assert method.lower() in _names(answer, "access-control-allow-methods")
        wanted = {"authorization", "x-api-key", "content-type", "idempotency-key", "last-event-id"}
        assert wanted <= _names(answer, "access-control-allow-headers")
        assert "origin" in _names(answer, "vary")
        assert "access-control-allow-credentials" not in answer.headers
        assert "nosniff" == answer.headers["x-content-type-options"]


@pytest.mark.parametrize(
    ("origin", "asked"),
    [
        ("https://evil.example", {}),
        ("null", {}),
        ("", {}),
        ("http://app.example.com", {}),
        ("https://app.example.com:8443", {}),
        ("https://app.example.com.evil.example", {}),
        ("https://APP.example.com", {}),
        (PAGE, {"method": "TRACE"}),
        (PAGE, {"headers": "x-user-id"}),
    ],
)
def test_other_preflights_are_refused(service: Service, origin: str, asked: dict[str, str]) -> None:
    """Another origin, method or header is a problem document like every refusal."""
    answer = _preflight(service, ME, origin, **asked)
    assert 400 == answer.status_code
    assert "application/problem+json" == answer.headers["content-type"]
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    if origin != PAGE:
        assert "access-control-allow-origin" not in answer.headers
        assert origin not in answer.text or not origin


def test_a_page_can_read_answers_and_errors(guarded: dict[str, Service]) -> None:
    """Good answers and every kind of error carry the origin, and show what a client needs."""
    auth, inference = guarded["auth"], guarded["inference"]
    for expected, method, url in (
        (200, "GET", inference.url + HEALTH),
        (401, "GET", auth.url + ME),
        (401, "POST", inference.url + ANALYZE),
        (404, "GET", inference.url + "/nothing"),
        (404, "GET", inference.url + "/x%2fy"),
        (405, "PUT", inference.url + ANALYZE),
        (422, "POST", auth.url + LOGIN),
    ):
        options = {"data": {"username": "x"}} if expected == 422 else {}
        answer = httpx.request(method, url, headers={"Origin": PAGE}, **options)
        assert (expected, PAGE) == (
            answer.status_code,
            answer.headers["access-control-allow-origin"],
        )
        exposed = {"ratelimit", "ratelimit-policy", "retry-after", "x-request-id", "location"}
        exposed |= {"content-disposition", "etag", "idempotent-replayed"}
        assert exposed == _names(answer, "access-control-expose-headers")
        other = httpx.request(method, url, headers={"Origin": "https://evil.example"}, **options)
        assert expected == other.status_code
        assert "access-control-allow-origin" not in other.headers


def test_a_page_can_read_the_last_resorts_answer() -> None:
    """An answer to a bug passes the origins' guard on its way out."""

    async def broken(scope: object, receive: object, send: object) -> None:
        raise RuntimeError

    app = middleware.CORS(middleware.ErrorBoundary(broken), allowed=[PAGE])

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/", headers={"Origin": PAGE})

    answer = asyncio.run(ask())
    assert (500, PAGE) == (answer.status_code, answer.headers["access-control-allow-origin"])


def test_without_a_list_no_page_may_ask(stack: Stack) -> None:
    """By default a preflight is an unknown method, and no answer names an origin."""
    for path in (ME, ANALYZE):
        headers = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        answer = stack.request("OPTIONS", path, headers=headers)
        assert 405 == answer.status_code
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def _ask(service: Service, *hosts: bytes, version: bytes = b"1.1") -> Answer:
    lines = [b"GET /nothing HTTP/" + version, *(b"Host: " + host for host in hosts)]
    (answer,) = exchange(service.url, b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n")
    return answer


@pytest.mark.parametrize(
    "host",
    [
        b"api.example.com",
        b"API.Example.com:8443",
        b"a.valence.test",
        b"a.b.valence.test:1",
        b"127.0.0.1:80",
    ],
)
def test_listed_hosts_are_served(service: Service, host: bytes) -> None:
    """Names in any case and with any port, and all names below a wildcard's."""
    assert 404 == _ask(service, host).status


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"valence.test",
        b"api.example.com.evil.example",
        b"evilvalence.test",
        b"x@api.example.com",
        b"api.example.com:x",
        b"api.example.com, evil.example",
        b"evil.example/.valence.test",
        b"evil.example#.valence.test",
        b"[::1]",
        b"\xff",
        b"",
    ],
)
def test_other_hosts_are_refused(service: Service, host: bytes) -> None:
    """A host that is not listed is answered 421 with a problem document that does not name it."""
    answer = _ask(service, host)
    assert 421 == answer.status
    assert "application/problem+json" == answer.headers["content-type"]
    assert "This host is not served here" == json.loads(answer.body)["detail"]
    assert host == b"" or host not in answer.body
    assert 421 == _ask(service, version=b"1.0").status


def test_probes_need_no_host(service: Service) -> None:
    """The internal port answers whatever name it is asked by."""
    for path in ("/livez", "/readyz", "/metrics"):
        answer = httpx.get(service.internal_url + path, headers={"Host": "10.1.2.3:9090"})
        assert 200 == answer.status_code


def _every_kind(stack: Stack, account: Account) -> Iterator[tuple[int, Answer]]:
    """Answers of each layer: handlers, gates, router, body reader, and the protocol itself."""
    token = b"Authorization: Bearer " + account.token.encode()
    kind = b"Content-Type: application/json"
    for expected, path, data in (
        (200, ME, message("GET", ME, token)),
        (200, HEALTH, message("GET", HEALTH)),
        (401, ME, message("GET", ME)),
        (404, "/nothing", message("GET", "/nothing")),
        (405, ME, message("POST", ME)),
        (400, ANALYZE, message("POST", ANALYZE, token, kind, b"Content-Length: 1", body=b"{")),
        (413, ANALYZE, message("POST", ANALYZE, token, kind, b"Content-Length: 9999999")),
        (415, ANALYZE, message("POST", ANALYZE, token, b"Content-Length: 2", body=b"{}")),
        (422, ANALYZE, message("POST", ANALYZE, token, kind, b"Content-Length: 2", body=b"{}")),
        (400, ME, b"GET / HTTP/1.1\r\n\r\n"),
        (400, HEALTH, b"nonsense\r\n\r\n"),
        (431, HEALTH, message("GET", HEALTH, b"X: " + b"v" * 70_000)),
    ):
        (answer,) = exchange(stack.url(path), data)
        yield expected, answer


def test_every_answer_carries_the_security_headers(stack: Stack, account: Account) -> None:
    """Also those that the protocol gives before any application is asked; none names a server."""
    for expected, answer in _every_kind(stack, account):
        assert expected == answer.status
        for name, value in middleware.SECURITY_HEADERS.items():
            assert value.lower() == answer.headers[name.lower()]
        assert "server" not in answer.headers
        assert "x-powered-by" not in answer.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "null"),
        ("CORS_ORIGINS", "https://*.example.com"),
        ("CORS_ORIGINS", "https://app.example.com/"),
        ("CORS_ORIGINS", "https://app.example.com:443"),
        ("CORS_ORIGINS", "https://App.example.com"),
        ("CORS_ORIGINS", "https://fine.example.com,other.example.com"),
        ("ALLOWED_HOSTS", "*"),
        ("ALLOWED_HOSTS", "api.example.com:443"),
        ("ALLOWED_HOSTS", "https://api.example.com"),
        ("ALLOWED_HOSTS", "API.example.com"),
    ],
)
def test_lists_that_cannot_be_meant_stop_the_start(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A wildcard for every page, or a name that no browser would send, ends in one sentence."""
    for needed, known in (
        ("DATABASE_URL", stack.database_url),
        ("REDIS_URL", stack.redis_url),
        ("JWT_KEYRING_FILE", str(stack.keyring)),
        (name, value),
    ):
        monkeypatch.setenv(f"VALENCE_{needed}", known)
    with pytest.raises(SettingsError, match=f"VALENCE_{name}: must [^;]*$"):
        load(WebSettings)
