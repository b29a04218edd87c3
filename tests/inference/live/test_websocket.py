"""The WebSocket: replies, strictness, credentials and limits."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support import credentials
from support.limits import limited
from support.live import HANDSHAKE, STREAM, closed, frame, raw_websocket, refusal, say, websocket
from support.raw import exchange, message
from support.rows import query
from support.stack import Account, Service, Stack
from support.waiting import until

ANALYZE = "/api/v1/sentiment/analyze"
SAME = ("sentiment", "confidence", "probabilities", "low_confidence", "model")
SECRET = "wonderful Sentinel7 of a text that is nobody's business"


def _history(web: Stack, user: Account) -> list[dict[str, Any]]:
    page = web.get("/api/v1/sentiment/history", user).json()
    return list(page["items"])


def test_texts_are_scored_as_analyze_does(web: Stack, service: Service, user: Account) -> None:
    """Scores and explanations are the same; a text is recorded only on request."""
    with websocket(service, user.headers) as socket:
        answer = say(socket, {"text": "I love this", "id": "a", "explain": True})
        body = {"text": "I love this", "explain": True}
        analyzed = web.post(ANALYZE, user, json=body).json()
        assert {"id", "processing_time", "explanation", *SAME} == answer.keys()
        assert "a" == answer["id"]
        for name in (*SAME, "explanation"):
            assert analyzed[name] == answer[name]
        plain = say(socket, {"text": "I love this"})
        assert {"processing_time", *SAME} == plain.keys()
        assert 1 == len(_history(web, user))
        recorded = say(socket, {"text": "awful", "id": 7, "record": True})
        assert (7, True) == (recorded["id"], recorded["recorded"])
        newest = _history(web, user)[0]
        assert (recorded["prediction_id"], "awful") == (newest["id"], newest["text"])


def test_answers_come_in_order(service: Service, user: Account) -> None:
    """Messages sent at once are answered one after another."""
    with websocket(service, user.headers) as socket:
        for number in range(100):
            socket.send(json.dumps({"text": "good", "id": number, "record": number % 10 == 0}))
        assert list(range(100)) == [json.loads(socket.recv(30))["id"] for _ in range(100)]


BAD = {
    "not JSON": "{nope",
    "empty": "",
    "a number": "1",
    "a list": '[{"text": "good"}]',
    "nothing": "{}",
    "NaN": '{"text": NaN}',
    "infinity": '{"text": "good", "x": 1e999}',
    "surrogate": '{"text": "good \\ud800"}',
    "NUL": '{"text": "good \\u0000"}',
    "depth": '{"text": ' + "[" * 40 + "]" * 40 + "}",
    "deeper": "[" * 100_000,
    "repeated": '{"text": "good", "text": "bad"}',
    "unknown": '{"text": "good", "colour": "red"}',
    "lax": '{"text": "good", "explain": "yes"}',
    "another type": '{"text": 5}',
    "null": '{"text": null}',
    "blank": '{"text": " \\n "}',
    "long": json.dumps({"text": "x" * 10_001}),
}


def test_messages_are_as_strict_as_bodies(web: Stack, service: Service, user: Account) -> None:
    """The error is the one of analyze; the WebSocket stays open."""
    headers = user.headers | {"Content-Type": "application/json"}
    with websocket(service, user.headers) as socket:
        for name, text in BAD.items():
            answer = say(socket, text)
            assert ["error"] == list(answer), name
            body = httpx.post(service.url + ANALYZE, content=text, headers=headers).json()
            for member in ("status", "title", "detail"):
                assert body[member] == answer["error"][member], name
            rules = [{e["rule"] for e in d.get("errors", [])} for d in (body, answer["error"])]
            assert rules[0] == rules[1] or name in {"a number", "a list"}, name
            assert STREAM == answer["error"]["instance"]
        assert "positive" == say(socket, {"text": "good"})["sentiment"]


def test_a_message_names_itself_or_does_not(service: Service, user: Account) -> None:
    """A string or integer `id` is returned, with errors as well; any other `id` is rejected."""
    with websocket(service, user.headers) as socket:
        for name in ("", "x" * 128, 0, -5, 2**53 - 1):
            assert name == say(socket, {"text": "good", "id": name})["id"]
            assert name == say(socket, {"text": "", "id": name})["id"]
        for name in ("x" * 129, 1.5, True, [], {}, 2**53, 10**400):
            answer = say(socket, {"text": "good", "id": name})
            assert ["error"] == list(answer)
            assert 422 == answer["error"]["status"]
        assert "id" not in say(socket, {"text": "good", "id": None})


def test_what_is_no_message_closes(service: Service, user: Account) -> None:
    """Too large: 1009, binary: 1003, not UTF-8: 1007, protocol error: 1002."""
    with websocket(service, user.headers) as socket:
        socket.send(json.dumps({"text": "x" * 1024 * 1024}))
        assert 1009 == closed(socket)
    with websocket(service, user.headers) as socket:
        socket.send(b'{"text": "good"}')
        assert 1003 == closed(socket)
    for data, code in (
        (frame(b"\xff\xfe"), 1007),
        (frame(b"{}", masked=False), 1002),
        (frame(b"x", opcode=0), 1002),
        (frame(b"", final=False) + frame(b"", opcode=0, final=False) * 2_000, 1009),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    ):
        with raw_websocket(service, user.headers) as connection:
            connection.sendall(data)
            received = b""
            while part := connection.recv(4096):
                received += part
            assert (0x88, code) == (received[0], int.from_bytes(received[2:4])), data[:20]


def test_a_message_counts_as_one_analysis(web: Stack, service: Service) -> None:
    """It counts in the same limits and usage; a limit is reported and closes nothing."""
    account = limited(web, per_minute=3, burst=0)
    path = service.url + ANALYZE
    with websocket(service, account.headers) as socket:
        assert "sentiment" in say(socket, {"text": "good"})
        assert 422 == say(socket, {"text": ""})["error"]["status"]
        assert 200 == httpx.post(path, json={"text": "bad"}, headers=account.headers).status_code
        refused = say(socket, {"text": "good", "id": 4})
        assert (4, 429) == (refused["id"], refused["error"]["status"])
        assert refused["error"]["retry_after"] > 0
        assert 429 == httpx.post(path, json={"text": "bad"}, headers=account.headers).status_code
        limited(web, account, per_minute=1000)
        until(lambda: "sentiment" in say(socket, {"text": "good"}), timeout=10)
    used = "SELECT sum(requests), sum(texts) FROM usage WHERE user_id = :id AND route = 'analyze'"
    url = web.database_url
    until(lambda: query(url, used, id=account.id) == [(3, 3)], timeout=20)


def test_every_way_to_bring_a_credential(web: Stack, service: Service, user: Account) -> None:
    """A token or an API key, as a header or as an additional subprotocol."""
    key = credentials.key(web, user, ["analyze"])["X-API-Key"]
    for headers in (
        user.headers,
        {"X-API-Key": key},
        {"Authorization": f"Bearer {key}"},
    ):
        with websocket(service, headers) as socket:
            assert socket.subprotocol is None
            assert "sentiment" in say(socket, {"text": "good"})
    for offered in (f"bearer.{user.token}", f"key.{key}", f"bearer.{key}"):
        for names in (["valence.v1", offered], [offered, "valence.v1"]):
            with websocket(service, subprotocols=names) as socket:
                assert "valence.v1" == socket.subprotocol
                assert "sentiment" in say(socket, {"text": "good"})


def test_refusals_are_answers(web: Stack, service: Service, user: Account) -> None:
    """None, two, invalid, in the query, without the scope: 401 or 403 instead of an upgrade."""
    token = f"bearer.{user.token}"
    key = credentials.key(web, user, ["analyze"])
    nobody: dict[str, Any]
    for nobody in (
        {},
        {"path": f"{STREAM}?access_token={user.token}"},
        {"path": f"{STREAM}?token={user.token}&key={key['X-API-Key']}"},
        {"subprotocols": ["valence.v1"]},
    ):
        answer = refusal(service, **nobody)
        assert (401, "Not authenticated") == (answer.status_code, answer.json()["detail"])
        assert "Bearer" == answer.headers["www-authenticate"]
    for headers, protocols in (
        ({"Authorization": "Bearer x"}, None),
        ({"Authorization": f"Basic {user.token}"}, None),
        (user.headers | key, None),
        (user.headers, ["valence.v1", token]),
        (key, ["valence.v1", token]),
        (None, ["valence.v1", token, token]),
        (None, ["valence.v1", "bearer.", token]),
        (None, ["valence.v1", "bearer.x"]),
        (None, ["valence.v1", f"key.{user.token}"]),
    ):
        answer = refusal(service, headers, subprotocols=protocols)
        assert 401 == answer.status_code, (headers, protocols)
        assert STREAM == answer.json()["instance"]
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    narrow = credentials.key(web, user, ["batch"])
    assert 403 == refusal(service, narrow).status_code
    assert 404 == refusal(service, user.headers, path=f"{STREAM}/").status_code
    assert 404 == refusal(service, user.headers, path="/api/v1%2Fsentiment/stream").status_code
    assert 404 == refusal(service, user.headers, path="/health").status_code


@pytest.fixture(scope="module")
def narrow(shared_web: Stack) -> Iterator[Service]:
    """A replica with CORS, allowed hosts, low limits and a short idle timeout."""
    service = shared_web.start(
        "inference",
        max_streams=3,
        max_user_streams=2,
        socket_idle_seconds=1.5,
        cors_origins="https://app.example.com",
        allowed_hosts="127.0.0.1",
    )
    yield service
    service.stop()


def test_sockets_are_bounded(web: Stack, narrow: Service, user: Account) -> None:
    """Limited per user and in total; the next one gets 429."""
    other = web.account()
    with websocket(narrow, user.headers), websocket(narrow, user.headers):
        answer = refusal(narrow, user.headers)
        assert 429 == answer.status_code
        assert int(answer.headers["retry-after"]) > 0
        with websocket(narrow, other.headers):
            assert 429 == refusal(narrow, other.headers).status_code

    def accepted() -> bool:
        with websocket(narrow, user.headers) as socket:
            return "sentiment" in say(socket, {"text": "good"})

    assert until(accepted, timeout=10)


def test_silence_closes(narrow: Service, user: Account) -> None:
    """An idle WebSocket is closed normally."""
    with websocket(narrow, user.headers) as socket:
        assert 1000 == closed(socket)


def test_only_listed_pages_and_hosts(narrow: Service, user: Account) -> None:
    """Pages of other origins and foreign hosts are rejected."""
    for origin in ("https://evil.example.com", "null", "https://app.example.com.evil.example"):
        answer = refusal(narrow, user.headers | {"Origin": origin})
        assert (403, "This origin is not allowed") == (answer.status_code, answer.json()["detail"])
    with websocket(narrow, user.headers | {"Origin": "https://app.example.com"}) as socket:
        assert "sentiment" in say(socket, {"text": "good"})
    token = f"Authorization: Bearer {user.token}".encode()
    elsewhere = message("GET", STREAM, *HANDSHAKE, token, close=False)  # for `localhost`
    assert [421] == [answer.status for answer in exchange(narrow.url, elsewhere)]


def test_one_line_tells_of_a_connection_and_none_of_its_texts(
    web: Stack, service: Service, user: Account
) -> None:
    """Route, status, code, seconds and messages; neither texts nor credentials."""
    name = f"live-{uuid.uuid4().hex}"
    before = len(service.output())
    headers = user.headers | {"X-Request-ID": name}
    with websocket(service, headers) as socket:
        assert name == socket.response.headers["x-request-id"]
        for body in ({"text": SECRET}, {"text": SECRET, "record": True}, {"id": SECRET}):
            say(socket, body)
        say(socket, SECRET)
    with websocket(service, subprotocols=["valence.v1", f"bearer.{user.token}"]) as socket:
        say(socket, {"text": SECRET})
        socket.send(SECRET.encode() + b"\xff")
        assert 1003 == closed(socket)

    def lines() -> list[dict[str, Any]]:
        new = service.output()[before:].splitlines()
        return [e for e in map(json.loads, new) if e["event"] == "websocket"]

    until(lambda: len(lines()) >= 2, timeout=10)
    [event] = [line for line in lines() if line["request_id"] == name]
    assert (STREAM, 101, 4) == (event["route"], event["status"], event["messages"])
    assert {"code", "seconds"} <= event.keys()
    new = service.output()[before:]
    for secret in ("Sentinel7", user.token, "Traceback", '"error"'):
        assert secret not in new
    metrics = httpx.get(f"{service.internal_url}/metrics").text
    assert 'valence_websocket_messages_total{status="200"}' in metrics
    assert f'route="{STREAM}",status="101"' in metrics
