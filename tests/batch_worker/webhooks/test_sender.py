"""One attempt at a webhook, with working, failing and hostile receivers."""

import asyncio
import base64
import ipaddress
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.receiver import Receiver, certificate, signed_with
from support.webhooks import SECRET, make_secret
from valence.local.ports import free_port
from valence_batch_worker.webhooks.deliveries import Delivery, Outcome
from valence_batch_worker.webhooks.sender import REASONS, Sender
from valence_batch_worker.webhooks.signature import signed_headers
from valence_common.db import new_id
from valence_inference.schemas.webhooks import Attempt

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
OLD = make_secret("old")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def sender(**changes: Any) -> Sender:
    defaults = {"timeout": 20, "allow_http": True, "allowed_networks": LOOPBACK}
    return Sender(**{**defaults, **changes})


def delivery(url: str, secrets: list[str] | None = None) -> Delivery:
    identifier = new_id()
    return Delivery(
        identifier,
        1,
        new_id(),
        url,
        [SECRET] if secrets is None else secrets,
        {"id": identifier, "type": "batch.completed", "data": {"total": 2}},
        datetime.now(UTC),
    )


def send(url: str, **changes: Any) -> tuple[int | None, str | None]:
    outcome = asyncio.run(sender(**changes).send(delivery(url)))
    return outcome.status_code, outcome.error


def test_signature_matches_the_published_vector() -> None:
    """The vector that the libraries of Standard Webhooks test themselves with."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signed_headers(
        [secret],
        b'{"test": 2432232314}',
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("size", [24, 32, 64])
def test_secret_in_the_old_format_signs_with_the_same_key(size: int) -> None:
    """Secrets stored before Standard Webhooks are URL-safe Base64 without padding."""
    key = bytes(range(256 - size, 256))  # needs both characters that differ
    standard = base64.b64encode(key).decode()
    old = base64.urlsafe_b64encode(key).decode().rstrip("=")
    assert old != standard
    first, second = (
        signed_headers([f"whsec_{secret}"], b"{}", message_id="1", timestamp=1)
        for secret in (standard, old)
    )
    assert first == second


def test_message_is_signed_json(receiver: Receiver) -> None:
    """Every active secret signs it, and no other; the standard library verifies it."""
    sent = delivery(receiver.url("/ok?x=1"), [SECRET, OLD])
    outcome = asyncio.run(sender().send(sent))
    assert (200, None, True) == (outcome.status_code, outcome.error, outcome.delivered)
    [request] = receiver.got("/ok?x=1")
    assert {"id": str(sent.id), "type": "batch.completed", "data": {"total": 2}} == json.loads(
        request.body
    )
    assert "application/json" == request.headers["content-type"]
    assert str(sent.id) == request.headers["webhook-id"]
    assert request.headers["user-agent"].startswith("Valence-Webhooks/")
    assert f"127.0.0.1:{receiver.port}" == request.headers["host"]
    assert signed_with(SECRET, request)
    assert signed_with(OLD, request)
    assert not signed_with(make_secret("other"), request)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/ok", (200, None)),
        ("/fail", (500, None)),
        ("/gone", (410, None)),
        ("/redirect", (302, "redirect")),
        ("/close", (None, "protocol")),
        ("/garbage", (None, "protocol")),
    ],
)
def test_outcome_of_a_response(receiver: Receiver, path: str, expected: Any) -> None:
    """The status, or one word for why there is none."""
    assert expected == send(receiver.url(path))
    assert 1 == len(receiver.requests)  # the redirect was not followed


def test_hanging_receiver_times_out(receiver: Receiver) -> None:
    """Without a response within the timeout there is no status."""
    assert (None, "timeout") == send(receiver.url("/hang"), timeout=0.5)


@pytest.mark.parametrize("path", ["/endless", "/drip"])
def test_endless_response_is_not_read(receiver: Receiver, path: str) -> None:
    """The status suffices."""
    assert (200, None) == send(receiver.url(path))


def test_unreachable_receivers(receiver: Receiver) -> None:
    """A closed port, and a name without an address."""
    assert (None, "connect") == send(f"http://127.0.0.1:{free_port()}/")

    async def nowhere(host: str, port: int) -> list[str]:
        raise OSError

    assert (None, "dns") == send("http://unknown.test/", resolve=nowhere)


def test_hanging_name_server_times_out() -> None:
    """The timeout includes the DNS lookup."""

    async def never(host: str, port: int) -> list[str]:
        await asyncio.sleep(600)
        return []

    assert (None, "timeout") == send("http://slow.test/", resolve=never, timeout=0.3)


def test_private_addresses_are_refused(receiver: Receiver) -> None:
    """Loopback by name and by number, unless it was allowed."""
    for host in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0"):
        assert (None, "refused_address") == send(receiver.url("/ok", host), allowed_networks=[])
    assert [] == receiver.requests


def test_http_is_refused_unless_allowed(receiver: Receiver) -> None:
    """Also for a URL that was accepted while http was allowed."""
    assert (None, "refused_url") == send(receiver.url(), allow_http=False)


def test_nothing_is_sent_without_a_secret(receiver: Receiver) -> None:
    """An unsigned message would teach receivers to accept them."""
    outcome = asyncio.run(sender().send(delivery(receiver.url(), [])))
    assert (None, "no_secret") == (outcome.status_code, outcome.error)
    assert [] == receiver.requests


def test_certificates_are_verified_for_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must be trusted and issued for the name, although we connect by address."""
    chain, key = certificate(tmp_path, "localhost")
    with Receiver((chain, key)) as receiver:
        assert (None, "tls") == send(receiver.url(host="localhost"), allow_http=False)
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
        assert (200, None) == send(receiver.url(host="localhost"), allow_http=False)
        assert (None, "tls") == send(receiver.url(host="127.0.0.1"), allow_http=False)
    assert 1 == len(receiver.requests)


def test_environment_proxies_are_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would resolve names itself, without our checks."""
    with Receiver() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        assert (200, None) == send(receiver.url())
    assert ([], 1) == (proxy.requests, len(receiver.requests))


def test_duration_is_measured(receiver: Receiver) -> None:
    """`seconds` is the duration of the attempt."""
    started = time.monotonic()
    outcome = asyncio.run(sender(timeout=0.5).send(delivery(receiver.url("/hang"))))
    assert 0.5 <= outcome.seconds <= time.monotonic() - started + 0.001


def test_every_reason_is_documented() -> None:
    """The API schema of the log lists them all."""
    description = Attempt.model_fields["error"].description or ""
    assert [] == [reason for reason in REASONS if f"`{reason}`" not in description]
    assert Outcome(0.1, 204).delivered
    assert not Outcome(0.1, 304, "redirect").delivered
