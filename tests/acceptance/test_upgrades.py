"""Upgrades to a WebSocket abused on the wire: refused, or answered in HTTP; none is read twice."""

import json

from support.invariants import CheckedClient
from support.live import HANDSHAKE, KEY, STREAM, frame
from support.raw import connect, message
from support.rows import query
from support.stack import Account, Stack

ANALYZE = "/api/v1/sentiment/analyze"
HEALTH = "/health"
ME = "/api/v1/users/me"


def _without(*fields: bytes) -> list[bytes]:
    """The handshake's fields but for these."""
    names = {field.partition(b":")[0] for field in fields}
    return [field for field in HANDSHAKE if field.partition(b":")[0] not in names]


INCOMPLETE = [
    _without(KEY),
    [*_without(KEY), b"Sec-WebSocket-Key: "],
    [*_without(KEY), b"Sec-WebSocket-Key: x"],
    [*_without(KEY), b"Sec-WebSocket-Key: " + b"A" * 24],
    [*_without(KEY), b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"],
    [*_without(KEY), b"Sec-WebSocket-Key: " + b"A" * 9_000],
    [*HANDSHAKE, KEY],
    _without(b"Sec-WebSocket-Version:"),
    [*_without(b"Sec-WebSocket-Version:"), b"Sec-WebSocket-Version: 8"],
    [*HANDSHAKE, b"Sec-WebSocket-Version: 8"],
    [*_without(b"Upgrade:"), b"Upgrade: h2c, websocket"],
    [*_without(b"Upgrade:"), b"Upgrade: WebSocket2"],
    [*HANDSHAKE, b"Sec-WebSocket-Protocol: a b"],
    [*HANDSHAKE, b"Sec-WebSocket-Protocol: ,"],
    [*HANDSHAKE, b"Sec-WebSocket-Protocol: \xff"],
    [*HANDSHAKE, b"Sec-WebSocket-Protocol: " + b"a" * 9_000],
    [*HANDSHAKE, b"Origin: https://a.example", b"Origin: https://b.example"],
    [*HANDSHAKE, b"X: " + b"v" * 9_000],
]


def test_case_018_what_is_no_handshake_is_answered_in_http(checked: CheckedClient) -> None:
    """A field that lacks, doubles or makes no sense: the path's own answer, and the end."""
    for path, plain in {STREAM: 426, HEALTH: 200, ME: 401}.items():
        for fields in INCOMPLETE:
            (answer,) = checked.raw(path, message("GET", path, *fields, close=False))
            assert (plain, "close") == (answer.status, answer.headers["connection"]), fields
    (answer,) = checked.raw(STREAM, message("GET", STREAM))
    assert (426, "13") == (answer.status, answer.headers["sec-websocket-version"])


def test_case_018_only_a_get_begins_a_websocket(checked: CheckedClient) -> None:
    """Another method is not served at that path, whatever it asks to become."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
        body = b"" if method == "HEAD" else b"{}"
        fields = [*HANDSHAKE, b"Content-Length: %d" % len(body)]
        (answer, *_) = checked.raw(STREAM, message(method, STREAM, *fields, body=body, close=False))
        assert 405 == answer.status, method


def test_case_018_upgrades_elsewhere(checked: CheckedClient, account: Account) -> None:
    """A whole handshake to a path where none is spoken is answered 401 or 404, and ended."""
    token = b"Authorization: Bearer " + account.token.encode()
    for path in (HEALTH, ANALYZE, f"{STREAM}/", "/api/v1/sentiment%2fstream", "/nowhere", "//x"):
        (answer,) = checked.raw(path, message("GET", path, *HANDSHAKE, token, close=False))
        assert (404, "close") == (answer.status, answer.headers["connection"]), path
    (answer,) = checked.raw(ME, message("GET", ME, *HANDSHAKE, close=False))
    assert (401, "close") == (answer.status, answer.headers["connection"])
    absolute = f"http://evil.example{STREAM}"
    (answer,) = checked.raw(STREAM, message("GET", absolute, *HANDSHAKE, token, close=False))
    assert 426 == answer.status


def test_case_017_nothing_is_smuggled_behind_an_upgrade(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """What follows a handshake, refused, declined or accepted, is never a request."""
    token = b"Authorization: Bearer " + account.token.encode()
    kind = b"Content-Type: application/json"
    body = b'{"text":"smuggled"}'
    fields = [token, kind, b"Content-Length: %d" % len(body)]
    hidden = message("POST", ANALYZE, *fields, body=body)
    refused = message("GET", STREAM, *HANDSHAKE, close=False)
    declined = message("GET", STREAM, *_without(KEY), token, close=False)
    other = [b"Connection: Upgrade", b"Upgrade: h2c"]
    another = message("GET", HEALTH, *other, close=False)
    for data, status in ((refused, 401), (declined, 426), (another, 200)):
        got = [answer.status for answer in checked.raw(STREAM, data + hidden)]
        assert [status] == got
    with_body = [*HANDSHAKE, token, b"Content-Length: %d" % len(hidden)]
    (answer,) = checked.raw(STREAM, message("GET", STREAM, *with_body, body=hidden, close=False))
    assert 426 == answer.status
    chunked = [*HANDSHAKE, token, b"Transfer-Encoding: chunked"]
    data = message("GET", STREAM, *chunked, body=b"0\r\n\r\n", close=False) + hidden
    (answer,) = checked.raw(STREAM, data)
    assert 426 == answer.status
    accepted = message("GET", STREAM, *HANDSHAKE, token, close=False)
    with connect(stack.url(STREAM)) as connection:
        connection.sendall(accepted)
        assert connection.recv(65536).startswith(b"HTTP/1.1 101")
        connection.sendall(hidden)
        closing = connection.recv(65536)
        assert (0x88, 1002) == (closing[0], int.from_bytes(closing[2:4]))
    mine = "SELECT text FROM predictions WHERE user_id = :user"
    assert [] == query(stack.database_url, mine, user=account.id)


def test_case_017_an_upgrade_waits_for_the_answers_before_it(
    checked: CheckedClient, account: Account
) -> None:
    """Behind a request that is still worked on, no answer lands in the middle of a WebSocket."""
    token = b"Authorization: Bearer " + account.token.encode()
    body = b'{"text":"good"}'
    fields = [token, b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    data = message("POST", ANALYZE, *fields, body=body, close=False)
    data += message("GET", STREAM, *HANDSHAKE, token, close=False) + frame(b"{}")
    first, second = checked.raw(ANALYZE, data)
    assert (200, 426, "close") == (first.status, second.status, second.headers["connection"])


def test_case_016_a_large_handshake(checked: CheckedClient) -> None:
    """Its head is bounded as any other."""
    data = message("GET", STREAM, *HANDSHAKE, b"X: " + b"v" * 64 * 1024, close=False)
    assert [431] == [answer.status for answer in checked.raw(STREAM, data)]
    data = message("GET", STREAM, *HANDSHAKE, *[b"X: v"] * 200, close=False)
    assert [431] == [answer.status for answer in checked.raw(STREAM, data)]


def test_case_016_frames_of_every_kind(checked: CheckedClient, account: Account) -> None:
    """Control frames, fragments, pings without end and nonsense: closed, or answered."""
    token = b"Authorization: Bearer " + account.token.encode()
    accepted = message("GET", STREAM, *HANDSHAKE, token, close=False)
    good = frame(json.dumps({"text": "good"}).encode())
    for data, code in (
        (frame(b"", opcode=8), 1005),
        (frame(b"\x03\xe8", opcode=8), 1000),
        (frame(b"\x03", opcode=8), 1002),
        (frame(b"\x00\x01", opcode=8), 1002),
        (frame(b"x", opcode=3), 1002),
        (frame(b"x", opcode=11), 1002),
        (frame(b"x" * 126, opcode=9), 1002),
        (frame(b"x", opcode=9, final=False), 1002),
        (b"\xc1\x80\x00\x00\x00\x00", 1002),
        (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),
        (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),
        (frame(b"x" * 300_000, final=False), 1009),
        (frame(b"x", final=False) + good, 1002),
    ):
        with connect(checked.stack.url(STREAM)) as connection:
            connection.sendall(accepted)
            assert connection.recv(65536).startswith(b"HTTP/1.1 101")
            connection.sendall(data)
            closing = connection.recv(65536)
        seen = int.from_bytes(closing[2:4]) if len(closing) >= 4 else 1005
        assert (0x88, code) == (closing[0], seen), data[:20]
    with connect(checked.stack.url(STREAM)) as connection:
        connection.sendall(accepted)
        assert connection.recv(65536).startswith(b"HTTP/1.1 101")
        connection.settimeout(1)
        try:
            for _ in range(50_000):  # whose answers nobody reads
                connection.sendall(frame(b"x" * 100, opcode=9))
        except TimeoutError:
            pass
