"""Timeouts of clients that read no answers or answer no pings, and an outage of Redis."""

import re
from pathlib import Path

import pytest

from support import shortened
from support.live import advance, following, open_streams, raw_websocket, say, stalled
from support.live import websocket as connect
from support.servers import Servers
from support.stack import Account, Service, Stack
from support.waiting import until
from valence_common.web import server
from valence_inference.api import websocket

PAGE = Path(__file__).parents[3] / "docs/live.md"
ANSWER = f"{websocket.__name__}.REPLY_TIMEOUT_SECONDS"
PING = f"{server.__name__}.PING_SECONDS"


def test_the_page_says_how_long() -> None:
    """The other tests shorten these times."""
    page = PAGE.read_text("utf-8")
    assert [f"{server.PING_SECONDS:g}"] == re.findall(r"no pong for (\d+) s", page)
    unread = re.findall(r"not read its answers for (\d+) s", page)
    assert [f"{websocket.REPLY_TIMEOUT_SECONDS:g}"] == unread


def test_who_does_not_read_is_cut_off(web: Stack, user: Account) -> None:
    """A client that sends messages but reads no replies loses its connection."""
    service = shortened.start(web, "inference", {ANSWER: 2.0, PING: 600.0})
    with stalled(service, user.headers), connect(service, user.headers) as other:
        until(lambda: open_streams(service, "websocket") == 1, timeout=15)
        assert "sentiment" in say(other, {"text": "good"})
    service.stop()


def test_who_answers_no_ping_is_closed(web: Stack, user: Account) -> None:
    """It is closed with 1011; a client that answers pings stays connected."""
    service = shortened.start(web, "inference", {PING: 1.0})
    with connect(service, user.headers) as alive, raw_websocket(service, user.headers) as dead:
        dead.settimeout(15)
        received = b"".join(iter(lambda: dead.recv(4096), b""))
        ping, end = re.fullmatch(rb"\x89.(.{4})\x88.(..).*", received, re.DOTALL).groups()
        assert (4, 1011) == (len(ping), int.from_bytes(end))
        assert "sentiment" in say(alive, {"text": "good"})
    service.stop()


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["down", "frozen"])
def test_redis_away_changes_nothing(
    servers: Servers, service: Service, user: Account, fault: str
) -> None:
    """Open streams and WebSockets continue, and new ones are accepted."""
    url, task_id = servers.postgres.url(), servers.stack.submit(user, ["good"] * 30)
    with following(service, task_id, user.headers) as events, connect(service, user.headers) as old:
        assert 0 == next(events).data["done"]
        assert "sentiment" in say(old, {"text": "good"})
        with getattr(servers.valkey, fault)():
            assert "sentiment" in say(old, {"text": "good"})
            assert say(old, {"text": "good", "record": True})["recorded"]
            advance(url, task_id)
            assert 10 == next(events).data["done"]
            with connect(service, user.headers) as new:
                assert "sentiment" in say(new, {"text": "good"})
            with following(service, task_id, user.headers) as more:
                assert 10 == next(more).data["done"]
                advance(url, task_id, 2, status="completed")
                assert ["end"] == [event.name for event in more]
            assert ["end"] == [event.name for event in events]
        assert "sentiment" in say(old, {"text": "good"})
