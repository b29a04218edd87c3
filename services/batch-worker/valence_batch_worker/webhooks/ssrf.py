"""SSRF protection: connect to public addresses only, and only to the address that was checked.

A name is resolved once, so DNS rebinding (another answer between the check and the connection) has
no effect. TLS is still verified for the name.
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
"""Resolves a name and port to all addresses; raises `OSError` or `UnicodeError`."""

MAX_ADDRESSES: Final = 4


class ForbiddenAddress(Exception):
    """At least one of the name's addresses is neither public nor allowed."""


class NameNotResolved(Exception):
    """The name has no address."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return all addresses of a name from the system's resolver.

    In a daemon thread: a name server that hangs must not delay the process's exit.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[str]] = loop.create_future()

    def set_result(result: list[str] | Exception) -> None:
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def look_up() -> None:
        result: list[str] | Exception
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            result = [str(address[0]) for *_, address in infos]
        except (OSError, UnicodeError) as error:
            result = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(set_result, result)

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    return await future


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """A network backend of httpcore that refuses addresses neither public nor `allowed`."""

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
        """Connect to the first address that accepts.

        Raises `ForbiddenAddress`, `NameNotResolved` or httpcore's errors.
        """
        addresses = await self._resolve_checked(host, port)
        for address in addresses[:-1]:
            # Share the timeout, so a silent address leaves time for the others.
            share = None if timeout is None else timeout / len(addresses)
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(
                    str(address), port, share, local_address, socket_options
                )
        return await self._network.connect_tcp(
            str(addresses[-1]), port, timeout, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        """Sleep; part of httpcore's interface."""
        await asyncio.sleep(seconds)

    async def _resolve_checked(self, host: str, port: int) -> list[Address]:
        try:
            resolved = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise NameNotResolved from error
        addresses = [
            unmap_ipv4(ipaddress.ip_address(address)) for address in dict.fromkeys(resolved)
        ]
        if not addresses:
            raise NameNotResolved
        if not all(is_allowed(address, self._allowed) for address in addresses):
            raise ForbiddenAddress
        return addresses[:MAX_ADDRESSES]
