"""The web application: request ids, headers, problem documents, error boundary."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, SecretStr

from support.rows import query
from support.tokens import Forge
from valence_common import log
from valence_common.db import new_id
from valence_common.problems import FieldError, Unavailable, Unprocessable
from valence_common.settings import WebSettings
from valence_common.web import app as web_app
from valence_common.web.access import Public, requires
from valence_common.web.state import Resources

SECRET = "S3ntinel in an exception"  # not a credential


class _Item(BaseModel):
    name: str


def _router() -> APIRouter:
    router = APIRouter(dependencies=[Public])

    @router.get("/fail")
    async def fail() -> None:
        raise RuntimeError(SECRET)

    @router.get("/down")
    async def down() -> None:
        raise Unavailable("postgres") from RuntimeError(SECRET)

    @router.get("/many")
    async def many() -> None:
        raise Unprocessable([FieldError("f" * 100, "r" * 50, "m" * 200)] * 1000)

    @router.post("/items")
    async def items(items: list[_Item]) -> int:
        return len(items)

    @router.get("/fine")
    async def fine() -> None:
        structlog.get_logger().info("within")

    return router


@pytest.fixture
def app(keyring_file: Path) -> FastAPI:
    settings = settings_of("postgresql://u:p@127.0.0.1:1/d", keyring_file)
    return web_app.create_app(Resources(settings), title="t", description="d", routers=[_router()])


Get = Callable[..., httpx.Response]


@pytest.fixture
def get(app: FastAPI) -> Get:
    """Send one request to the application, in this process."""

    def send(path: str, method: str = "GET", **options: object) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(_awaited(ask))

    return send


async def _awaited(ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    return await ask()


@pytest.mark.parametrize("given", ["abc-1.2_3", "A" * 64])
def test_valid_request_id_is_used(get: Get, given: str) -> None:
    """A client's plain id is that of the response and the problem document."""
    answer = get("/nothing", headers={"X-Request-ID": given})
    assert given == answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize("given", [None, "", "a b", "A" * 65, "é", "a\tb", "{}"])
def test_invalid_request_id_is_replaced(get: Get, given: str | None) -> None:
    """An id that could damage a log is replaced; each request has its own."""
    headers = {} if given is None else {"X-Request-ID": given.encode()}
    ids = [get("/nothing", headers=headers).headers["x-request-id"] for _ in range(2)]
    assert ids[0] != ids[1]
    assert [36, 36] == [len(identifier) for identifier in ids]


@pytest.mark.parametrize("path", ["/fine", "/nothing", "/fail", "/down", "/x%2fy"])
def test_every_response_has_the_security_headers(get: Get, path: str) -> None:
    """They forbid sniffing, framing, scripts and caching."""
    headers = get(path).headers
    assert "nosniff" == headers["x-content-type-options"]
    assert "DENY" == headers["x-frame-options"]
    assert "no-referrer" == headers["referrer-policy"]
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "no-store" == headers["cache-control"]
    assert "server" not in headers


def test_case_098_an_unexpected_error(get: Get, logged: pytest.CaptureFixture[str]) -> None:
    """A bug is a generic problem with the request id; its message is not in response or log."""
    log.configure("test")
    answer = get("/fail", headers={"X-Request-ID": "the-id"})
    body = answer.json()
    assert (500, "the-id") == (answer.status_code, body["request_id"])
    assert "application/problem+json" == answer.headers["content-type"]
    assert SECRET not in answer.text
    out = logged.readouterr().out
    assert SECRET not in out
    assert "Traceback" not in out
    events = [json.loads(line) for line in out.splitlines()]
    assert ["unhandled", "request"] == [event["event"] for event in events]
    assert ("RuntimeError", "the-id") == (events[0]["error"], events[0]["request_id"])
    assert any("test_app.py" in frame for frame in events[0]["where"])
    assert 500 == events[1]["status"]


def test_request_has_one_log_line(get: Get, logged: pytest.CaptureFixture[str]) -> None:
    """Its lines carry the request id; the access line has the route template."""
    log.configure("test")
    get("/fine?text=hidden", headers={"X-Request-ID": "the-id"})
    events = [json.loads(line) for line in logged.readouterr().out.splitlines()]
    assert ["within", "request"] == [event["event"] for event in events]
    assert {"the-id"} == {event["request_id"] for event in events}
    assert ("GET", "/fine", 200) == tuple(events[1][k] for k in ("method", "route", "status"))
    assert "hidden" not in json.dumps(events)


def test_unavailable_dependency_is_503(get: Get) -> None:
    """With `Retry-After`, and without the name of the dependency."""
    answer = get("/down")
    assert (503, "2") == (answer.status_code, answer.headers["retry-after"])
    assert "postgres" not in answer.text


def test_problem_documents_are_limited(get: Get) -> None:
    """Of many invalid fields ten are named, and the document is at most 4 KiB."""
    answer = get("/many")
    assert (422, 10) == (answer.status_code, len(answer.json()["errors"]))
    assert len(answer.content) <= 4096
    wrong = get("/items", method="POST", json=[{"nam": SECRET}] * 5000)
    assert (422, 10) == (wrong.status_code, len(wrong.json()["errors"]))
    assert len(wrong.content) <= 4096
    assert SECRET not in wrong.text
    assert {"body.0.name", "missing"} <= {v for e in wrong.json()["errors"] for v in e.values()}


def test_problem_documents_have_their_members(get: Get) -> None:
    """The members of RFC 9457, and the request id."""
    answer = get("/nothing")
    assert {"type", "title", "status", "detail", "instance", "request_id"} == set(answer.json())
    assert ("about:blank", "Not Found", 404) == tuple(
        answer.json()[k] for k in ("type", "title", "status")
    )


def test_no_credential_is_accepted_before_the_first_poll(
    keyring_file: Path, own_database_url: str
) -> None:
    """A valid token gets 503 until the revocations are read, and the process is not ready."""
    router = APIRouter()
    router.get("/mine", dependencies=[requires("analyze")])(lambda: "mine")
    resources = Resources(settings_of(own_database_url, keyring_file))
    app = web_app.create_app(resources, title="t", description="d", routers=[router])
    forge, session_id = Forge(keyring_file), str(new_id())
    good, revoked = forge.token(), forge.token(claims={"sid": session_id})
    revoke = "INSERT INTO revocations (id, subject_id) VALUES (:id, :session)"
    query(own_database_url, revoke, id=new_id(), session=session_id)
    query(own_database_url, "ALTER TABLE revocations RENAME TO gone")

    async def statuses() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = [{"Authorization": f"Bearer {token}"} for token in (good, revoked)]
            return [(await client.get("/mine", headers=h)).status_code for h in headers]

    async def live() -> None:
        async with app.router.lifespan_context(app), asyncio.timeout(60):
            assert await resources.database.ping()
            # Long enough for it to become ready, if it did not wait for the revocations.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(until_ready(), 1.5)
            assert [503, 503] == await statuses()
            query(own_database_url, "ALTER TABLE gone RENAME TO revocations")
            await until_ready()
            assert [200, 401] == await statuses()

    async def until_ready() -> None:
        while not resources.health.ready:
            await asyncio.sleep(0.05)

    asyncio.run(live())


def settings_of(database_url: str, keyring_file: Path) -> WebSettings:
    return WebSettings(
        database_url=SecretStr(database_url),
        redis_url=SecretStr("redis://127.0.0.1:1"),
        jwt_keyring_file=keyring_file,
    )


def test_polling_continues_after_any_error(
    keyring_file: Path, own_database_url: str, logged: pytest.CaptureFixture[str]
) -> None:
    """After an unexpected error the process polls the revocations again."""
    log.configure("test")
    settings = settings_of(own_database_url, keyring_file)
    app = web_app.create_app(Resources(settings), title="t", description="d", routers=[])
    news, session_id = app.state.resources.revocations, new_id()

    async def live() -> None:
        async with app.router.lifespan_context(app), asyncio.timeout(20):
            while not news.loaded:
                await asyncio.sleep(0.05)
            query(own_database_url, "ALTER TABLE revocations RENAME TO gone")
            while news.age < 2.5:
                await asyncio.sleep(0.05)
            query(own_database_url, "ALTER TABLE gone RENAME TO revocations")
            revoke = "INSERT INTO revocations (id, subject_id) VALUES (:id, :session)"
            query(own_database_url, revoke, id=new_id(), session=session_id)
            while session_id not in news:
                await asyncio.sleep(0.05)

    asyncio.run(live())
    assert "ProgrammingError" in logged.readouterr().out
