"""Reliability cases 16 to 21: request heads, methods, paths, and what reaches the logs."""

import json
import unicodedata
from urllib.parse import quote

import pytest

from support.invariants import CheckedClient
from support.operations import operations
from support.raw import answers, connect, message
from support.rows import query
from support.stack import PASSWORD, Account, Stack

REGISTER = "/api/v1/auth/register"
LOGIN = "/api/v1/auth/login"
ME = "/api/v1/users/me"
ANALYZE = "/api/v1/sentiment/analyze"
HISTORY = "/api/v1/sentiment/history"
HEALTH = "/health"

UNDOCUMENTED = {"/openapi.json": {"GET"}, "/docs": {"GET"}, "/docs/start.js": {"GET"}}
METHODS = ("TRACE", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "GET", "POST", "QUERY")


@pytest.mark.parametrize("path", [ME, HEALTH])
def test_case_016_large_heads(checked: CheckedClient, path: str) -> None:
    """Heads are bounded in bytes, in fields and in every one of both; memory stays flat."""
    for head in (
        message("GET", path, b"X: " + b"v" * 64 * 1024),
        message("GET", path, b"X: " + b"v" * 1024 * 1024),
        message("GET", path, b"X: " + b"v" * 20 * 1024 * 1024),
        message("GET", path, b"Authorization: Bearer " + b"v" * 64 * 1024),
        message("GET", path, b"n" * 64 * 1024 + b": v"),
        message("GET", path, *[b"X: v"] * 20_000),
        message("GET", path, *[b"X: v"] * 101),
        message("GET", path, *[b"X: " + b"v" * 9_000] * 4),
        message("GET", path + "?" + "q" * 40 * 1024),
    ):
        assert [431] == [answer.status for answer in checked.raw(path, head)], head[:60]


def test_case_016_heads_within_the_limits(checked: CheckedClient) -> None:
    """90 fields, 28 KiB and bytes beyond ASCII in a value that nobody reads are served."""
    for fields in ([b"X: v"] * 90, [b"X: " + b"v" * 7_000] * 4, [b"X: \xe2\x98\x83\xff"]):
        assert [200] == [a.status for a in checked.raw(HEALTH, message("GET", HEALTH, *fields))]


def test_case_016_control_characters(checked: CheckedClient) -> None:
    """A header value that holds control characters or a folded line is refused."""
    for value in (b"a\0b", b"a\x01b", b"a\x7fb", b"a\r\n folded", b"a\rb", b"a\nb"):
        head = message("GET", HEALTH, b"X: " + value)
        assert [400] == [answer.status for answer in checked.raw(HEALTH, head)], value


def test_case_016_trailers_are_no_headers(checked: CheckedClient, account: Account) -> None:
    """A field after the body neither authenticates nor names the request; too many end it."""
    chunked = [b"Content-Type: application/json", b"Transfer-Encoding: chunked"]
    body = b'f\r\n{"text":"good"}\r\n0\r\n'
    token = b"Authorization: Bearer " + account.token.encode()
    data = message("POST", ANALYZE, *chunked, body=body + token + b"\r\n\r\n")
    assert [401] == [answer.status for answer in checked.raw(ANALYZE, data)]
    named = body + b"X-Request-ID: trailer\r\n\r\n"
    (answer,) = checked.raw(ANALYZE, message("POST", ANALYZE, token, *chunked, body=named))
    assert 200 == answer.status
    assert "trailer" != answer.headers["x-request-id"]
    for flood in (b"X: v\r\n" * 200, b"X: " + b"v" * 1024 * 1024):
        data = message("POST", ANALYZE, token, *chunked, body=body + flood)
        assert 431 == checked.raw(ANALYZE, data)[-1].status


_CHUNKED = b"Transfer-Encoding: chunked"

AMBIGUOUS: list[tuple[list[bytes], bytes]] = [
    ([b"Content-Length: 5", _CHUNKED], b"0\r\n\r\n"),
    ([_CHUNKED, b"Content-Length: 5"], b"0\r\n\r\n"),
    ([b"Content-Length: 5", b"Content-Length: 6"], b"abcde"),
    ([b"Content-Length: 5", b"Content-Length: 5"], b"abcde"),
    ([b"Content-Length: 5, 5"], b"abcde"),
    ([b"Content-Length: +5"], b"abcde"),
    ([b"Content-Length: 0x5"], b"abcde"),
    ([b"Content-Length: -5"], b"abcde"),
    ([b"Content-Length : 5"], b"abcde"),
    ([b"Transfer-Encoding: xchunked"], b"0\r\n\r\n"),
    ([b"Transfer-Encoding: identity"], b"0\r\n\r\n"),
    ([b"Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n"),
    ([b"Transfer-Encoding: chunked, identity"], b"0\r\n\r\n"),
    ([_CHUNKED, _CHUNKED], b"0\r\n\r\n"),
    ([b"Transfer-Encoding:\x0bchunked"], b"0\r\n\r\n"),
    ([_CHUNKED], b"0x5\r\nabcde\r\n0\r\n\r\n"),
    ([_CHUNKED], b"5\nabcde\n0\n\n"),
    ([_CHUNKED], b"-1\r\nabcde\r\n0\r\n\r\n"),
    ([b"Host: other", b"Content-Length: 5"], b"abcde"),
    ([b"X : y", b"Content-Length: 5"], b"abcde"),
]


def test_case_017_smuggling(stack: Stack, checked: CheckedClient, account: Account) -> None:
    """A request whose end could be read in two ways is refused; what follows it never runs."""
    token = b"Authorization: Bearer " + account.token.encode()
    kind = b"Content-Type: application/json"
    hidden = message("POST", ANALYZE, token, kind, b"Content-Length: 15", body=b'{"text":"good"}')
    for fields, body in AMBIGUOUS:
        data = message("POST", ANALYZE, token, kind, *fields, body=body, close=False) + hidden
        (answer,) = checked.raw(ANALYZE, data)
        assert (400, "close") == (answer.status, answer.headers["connection"]), (fields, body)
    mine = "SELECT text FROM predictions WHERE user_id = :user"
    assert [] == query(stack.database_url, mine, user=account.id)
    assert [200] == [answer.status for answer in checked.raw(ANALYZE, hidden)]


def test_case_017_bare_line_feeds_and_missing_hosts(checked: CheckedClient) -> None:
    """Lines that end in LF alone, no Host, and HTTP/0.9 and 2 are refused."""
    for data in (
        b"GET /health HTTP/1.1\nHost: x\n\n",
        b"GET /health HTTP/1.1\r\nHost: x\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ):
        assert [400] == [answer.status for answer in checked.raw(HEALTH, data)], data


def test_case_017_pipelined_requests_are_answered_in_order(
    checked: CheckedClient, account: Account
) -> None:
    """Requests that come at once on one connection are answered one after another."""
    fields = [
        b"Authorization: Bearer " + account.token.encode(),
        b"Content-Type: application/json",
    ]
    data = b""
    for number in range(5):
        body = json.dumps({"text": f"good {number}"}).encode()
        fixed = [*fields, b"Content-Length: %d" % len(body)]
        data += message("POST", ANALYZE, *fixed, body=body, close=False)
    data += message("GET", "/")
    *scored, last = checked.raw(ANALYZE, data)
    assert [f"good {n}" for n in range(5)] == [json.loads(a.body)["text"] for a in scored]
    assert 200 == last.status


def _routes() -> dict[str, set[str]]:
    """Every path with its methods."""
    routes: dict[str, set[str]] = {}
    for operation in operations():
        path = operation.filled("01a1fe96-fd7e-7565-8ebe-ad96f1cb2dc6")
        routes.setdefault(path, set()).add(operation.method)
    return routes | UNDOCUMENTED


def test_case_018_methods(checked: CheckedClient, account: Account) -> None:
    """Only a route's own methods are served; headers that override them are not heard."""
    overrides = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
    for path, allowed in _routes().items():
        headers = account.headers | dict.fromkeys(overrides, max(allowed))
        for method in set(METHODS) - allowed:
            answer = checked.request(method, path, headers=headers)
            seen = (answer.status_code, answer.headers.get("allow"))
            assert (405, ", ".join(sorted(allowed))) == seen, f"{method} {path}"
            assert "location" not in answer.headers


def test_case_018_paths(checked: CheckedClient, account: Account) -> None:
    """A path has one spelling; others lead nowhere, and nowhere else."""
    for path in (
        "//api//v1//users//me",
        "//evil.example.com/api/v1/users/me",
        "/api/v1/sentiment/../users/me",
        "/api/v1/sentiment/%2e%2e/users/me",
        "/api/v1/users/me/",
        "/api/v1/users/me;x=1",
        "/api/v1/users%2fme",
        "/api/v1%2Fsentiment%2Fhistory",
        "/api/v1/sentiment/history%2f",
        "/api/v1/sentiment/history/",
        "/api/v1/sentiment/history.json",
        "/API/V1/SENTIMENT/HISTORY",
        "/api/v1/sentiment%5chistory",
        "/api/v2/sentiment/history",
        "/docs/../health",
        "/docs/%2e%2e%2fopenapi.json",
        "/docs/..%5copenapi.json",
        "/metrics",
        "/livez",
        "/readyz",
        "/" + "a" * 8192,
        "/" + "%41" * 2000,
        "/%ff%fe",
        "*",
    ):
        for service in (HISTORY, ME):
            token = b"Authorization: Bearer " + account.token.encode()
            (answer,) = checked.raw(service, message("GET", path, token))
            assert 404 == answer.status, path
            assert "location" not in answer.headers


def test_case_018_upgrades_are_declined(checked: CheckedClient) -> None:
    """A request to speak another protocol is answered in this one."""
    for name in (b"websocket", b"h2c"):
        fields = [b"Connection: Upgrade", b"Upgrade: " + name, b"Sec-WebSocket-Version: 13"]
        with connect(checked.stack.url(HEALTH)) as connection:
            connection.sendall(message("GET", HEALTH, *fields, close=False))
            assert connection.recv(12) == b"HTTP/1.1 200"


FORGED = '\r\n{"level":"info","event":"forged"}\r\n\x1b[31mred\x1b[0m'


def test_case_021_log_injection(checked: CheckedClient, account: Account) -> None:
    """What a client chooses stays one escaped, short value of its event's one line, or out."""
    before = len(checked.stack.running("auth")[0].output())
    encoded = "%0d%0a%7b%22event%22%3a%22forged%22%7d%1b[31m"
    checked.request("GET", f"/api/v1/users/{encoded}")
    checked.request("GET", f"/api/v1/users/me?x={encoded}", headers=account.headers)
    checked.post(REGISTER, json.dumps({"username": FORGED, "email": FORGED, "password": FORGED}))
    checked.post(REGISTER, json.dumps({FORGED: FORGED}))
    form = f"username={encoded}&password={encoded}"
    checked.post("/api/v1/auth/login", form, content_type="application/x-www-form-urlencoded")
    for value in (b'x"}{"event":"forged"}', b"\xc2\x85\xe2\x80\xa8forged", b"f" * 20_000):
        fields = [b"User-Agent: " + value, b"X-Request-ID: " + value, b"Referer: " + value]
        for field in fields:
            (answer,) = checked.raw(ME, message("GET", ME, field))
            assert 401 == answer.status
            assert b"forged" not in answer.headers["x-request-id"].encode()
    checked.raw(ME, b'FORGED"}{"event":"forged /api/v1/users/me HTTP/1.1\r\nHost: x\r\n\r\n')
    new = checked.stack.running("auth")[0].output()[before:]
    assert "forged" not in new
    assert "\x1b" not in new
    assert max(len(line) for line in new.splitlines()) < 2_000
    assert {"request"} >= {json.loads(line)["event"] for line in new.splitlines()} - {
        "Invalid HTTP request received."
    }


@pytest.mark.parametrize(
    "agent",
    [
        b'x"}{"event":"forged"}',
        b"\x9b31mred\xc2\x85forged\xe2\x80\xa8",
        b"forged" * 2_000,
        b"\xff\xfe",
    ],
)
def test_case_021_a_stored_agent(
    stack: Stack, checked: CheckedClient, account: Account, agent: bytes
) -> None:
    """The name that a client gives itself is kept short with its session, and out of the log."""
    before = len(stack.running("auth")[0].output())
    form = f"username={account.username}&password={quote(PASSWORD)}".encode()
    kind = b"Content-Type: application/x-www-form-urlencoded"
    fields = [b"User-Agent: " + agent, kind, b"Content-Length: %d" % len(form)]
    (answer,) = checked.raw(LOGIN, message("POST", LOGIN, *fields, body=form))
    assert 200 == answer.status
    stored = "SELECT user_agent FROM sessions WHERE user_id = :user ORDER BY id DESC LIMIT 1"
    [(kept,)] = query(stack.database_url, stored, user=account.id)
    assert kept
    assert len(kept) <= 256
    assert set(kept) <= set(agent.decode("latin-1"))
    assert not [letter for letter in kept if unicodedata.category(letter) == "Cc"]
    listed = checked.request("GET", "/api/v1/auth/sessions", headers=account.headers)
    assert 200 == listed.status_code
    assert not set(listed.text) & {chr(n) for n in range(32)}
    new = stack.running("auth")[0].output()[before:]
    assert "forged" not in new
    assert "\x9b" not in new
    for line in new.splitlines():
        json.loads(line)


def test_case_021_a_long_name_of_a_method(checked: CheckedClient) -> None:
    """An unknown method is refused before it could be logged."""
    (answer,) = checked.raw(ME, message("M" * 5000, ME))
    assert 400 == answer.status


def test_heads_that_do_not_end(stack: Stack) -> None:
    """A connection that sends half a head, or nothing, is ended with a 408."""
    silent = [connect(stack.url(path)) for path in (HEALTH, ME)]
    halves = [connect(stack.url(path)) for path in (HEALTH, ME)]
    for connection in halves:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: ")
    for connection in silent + halves:
        (answer,) = answers(connection)
        connection.close()
        assert (408, "close") == (answer.status, answer.headers["connection"])
