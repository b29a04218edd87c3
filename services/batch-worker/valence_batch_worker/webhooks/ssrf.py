"""The guard: connects to public addresses only, and to the very address that it has checked.

A name is looked up once, after which nobody asks again: an answer that changes between the check
and the connection (DNS rebinding) changes nothing. TLS is still verified for the name.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import httpcore

from valence_common.ssrf import Address, Network, is_allowed, unmap_ipv4

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a name and port to all its addresses; raises `OSError` or `UnicodeError`."""

MAX_ADDRESSES: Final = 4


class ForbiddenAddress(Exception):
    """The name leads, if only with one of its addresses, to where webhooks must not go."""


class NameNotResolved(Exception):
    """The name has no address."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name, as the system knows them.

    In a thread that nobody waits for: a name server that hangs must not hold up the exit.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(found: list[str] | Exception) -> None:
        if answer.done():
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def look_up() -> None:
        found: list[str] | Exception
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = [str(address[0]) for *_, address in infos]
        except (OSError, UnicodeError) as error:
            found = error
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    return await answer


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """The network as httpcore sees it, without what is neither public nor `allowed`."""

    def __init__(self, allowed: Sequence[Network], resolve: Resolve = resolve):
        self._allowed = allowed
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers; raises `RefusedAddress` or `Unresolved`."""
        addresses = await self._resolve_checked(host, port)
        for address in addresses[:-1]:
            # Each gets its part of the time: one that is silent must not use up all of it.
            share = None if timeout is None else timeout / len(addresses)
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(
                    str(address), port, share, local_address, socket_options
                )
        return await self._network.connect_tcp(
            str(addresses[-1]), port, timeout, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def _resolve_checked(self, host: str, port: int) -> list[Address]:
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise NameNotResolved from error
        addresses = [unmap_ipv4(ipaddress.ip_address(address)) for address in dict.fromkeys(found)]
        if not addresses:
            raise NameNotResolved
        if not all(is_allowed(address, self._allowed) for address in addresses):
            raise ForbiddenAddress
        return addresses[:MAX_ADDRESSES]
