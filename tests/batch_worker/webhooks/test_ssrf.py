"""SSRF protection: the worker connects only to addresses that it has checked."""

import asyncio
import ipaddress
from collections.abc import Sequence

import httpcore
import pytest

from support.receiver import Receiver
from valence.local.ports import free_port
from valence_batch_worker.webhooks.ssrf import (
    ForbiddenAddress,
    GuardedBackend,
    NameNotResolved,
    resolve,
)

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


class Names:
    """A name server that gives its answers in order, and then repeats the last one."""

    def __init__(self, *answers: Sequence[str] | Exception):
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def connect(backend: GuardedBackend, host: str, port: int) -> str:
    """Connect and close; return the peer's address."""

    async def run() -> str:
        stream = await backend.connect_tcp(host, port, timeout=10)
        address = stream.get_extra_info("server_addr")[0]
        await stream.aclose()
        return str(address)

    return asyncio.run(run())


def test_loopback_by_name_is_refused() -> None:
    """The resolved address decides, not the name."""
    with Receiver() as receiver, pytest.raises(ForbiddenAddress):
        connect(GuardedBackend([]), "localhost", receiver.port)


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "0"])
def test_loopback_by_number_is_refused(host: str) -> None:
    """In every notation that the system's resolver accepts."""
    with Receiver() as receiver, pytest.raises(ForbiddenAddress):
        connect(GuardedBackend([]), host, receiver.port)


def test_allowed_network_is_reachable() -> None:
    """The operator may allow private networks."""
    names = Names(["127.0.0.1"])
    with Receiver() as receiver:
        assert "127.0.0.1" == connect(GuardedBackend(LOOPBACK, names), "a.test", receiver.port)
    assert ["a.test"] == names.asked


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1", "10.0.0.1"],
        ["10.0.0.1", "127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["127.0.0.1", "fe80::1%1"],
        ["::ffff:10.1.2.3"],
    ],
)
def test_one_bad_address_refuses_the_name(addresses: list[str]) -> None:
    """A name with public and private addresses is refused altogether."""
    with pytest.raises(ForbiddenAddress):
        connect(GuardedBackend(LOOPBACK, Names(addresses)), "a.test", 1)


def test_dns_rebinding_has_no_effect() -> None:
    """The name server changes its answer after the check, but it is not asked again.

    The first answer, allowed here, stands for a public address; the second would be refused.
    """
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    backend = GuardedBackend(LOOPBACK, names)
    with Receiver() as receiver:
        assert "127.0.0.1" == connect(backend, "a.test", receiver.port)
        assert 1 == len(names.asked)
        with pytest.raises(ForbiddenAddress):
            connect(backend, "a.test", receiver.port)


def test_next_address_is_tried() -> None:
    """A receiver that is down at one address may be up at another."""
    names = Names(["127.0.0.2", "127.0.0.1"])
    with Receiver() as receiver:
        assert "127.0.0.1" == connect(GuardedBackend(LOOPBACK, names), "a.test", receiver.port)


def test_name_without_addresses_is_a_dns_error() -> None:
    """Unlike a receiver that is down."""
    for answer in (OSError("no such name"), UnicodeError("label too long"), []):
        with pytest.raises(NameNotResolved):
            connect(GuardedBackend(LOOPBACK, Names(answer)), "a.test", 1)
    with pytest.raises(httpcore.ConnectError):
        connect(GuardedBackend(LOOPBACK), "127.0.0.1", free_port())


def test_system_resolver() -> None:
    """It resolves `localhost` and addresses, and rejects invalid names."""
    assert {"127.0.0.1", "::1"} & set(asyncio.run(resolve("localhost", 80)))
    assert ["127.0.0.1"] == asyncio.run(resolve("127.0.0.1", 80))
    for odd in ("a" * 64 + ".example", "a..example"):
        with pytest.raises((OSError, UnicodeError)):
            asyncio.run(resolve(odd, 80))
