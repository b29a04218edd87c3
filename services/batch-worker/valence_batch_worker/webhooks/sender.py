"""One attempt: a signed POST to a checked address within one timeout."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

import httpcore
import httpx
import msgspec
import structlog

from valence_batch_worker.webhooks import ssrf
from valence_batch_worker.webhooks.deliveries import Delivery, Outcome
from valence_batch_worker.webhooks.signature import signed_headers
from valence_common.log import log_fields
from valence_common.ssrf import Network

MAX_RESPONSE_BYTES: Final = 4 * 1024
DRAIN_SECONDS: Final = 1.0
USER_AGENT: Final = f"Valence-Webhooks/{version('valence-batch-worker')}"

Reason = Literal[
    "timeout",
    "dns",
    "connect",
    "tls",
    "disconnected",
    "protocol",
    "redirect",
    "refused_address",
    "refused_url",
    "no_secret",
    "internal",
]
REASONS: Final = get_args(Reason)
"""All values of an attempt's `error`; it never holds text from the receiver."""


class Sender:
    """Sends deliveries; concurrent calls are independent."""

    def __init__(
        self,
        *,
        timeout: float,
        allow_http: bool,
        allowed_networks: Sequence[Network],
        resolve: ssrf.Resolve = ssrf.resolve,
    ):
        self._timeout = timeout
        self._schemes = {"https", "http"} if allow_http else {"https"}
        # Trusts httpx's bundled certificate authorities, or those in SSL_CERT_FILE.
        self._tls = httpx.create_ssl_context()
        self._backend = ssrf.GuardedBackend(allowed_networks, resolve)

    async def send(self, delivery: Delivery) -> Outcome:
        """Make one attempt; never raises."""
        started = time.monotonic()
        status, error = await self._attempt(delivery)
        if status is not None and 300 <= status < 400:
            error = "redirect"
        return Outcome(round(time.monotonic() - started, 3), status, error)

    async def _attempt(self, delivery: Delivery) -> tuple[int | None, Reason | None]:
        if not delivery.secrets:
            return None, "no_secret"
        if urlsplit(delivery.url).scheme not in self._schemes:
            return None, "refused_url"
        status: int | None = None
        try:
            async with asyncio.timeout(self._timeout), self._post(delivery) as response:
                status = response.status
                await _drain(response)
        except Exception as error:  # noqa: BLE001 - every attempt must be logged
            # After the status, errors in the rest of the response do not matter.
            return (None, _reason(error)) if status is None else (status, None)
        return status, None

    @contextlib.asynccontextmanager
    async def _post(self, delivery: Delivery) -> AsyncIterator[httpcore.Response]:
        body = msgspec.json.encode(delivery.message)
        headers = {
            "Content-Type": "application/json",
            "Connection": "close",
            "User-Agent": USER_AGENT,
            **signed_headers(
                delivery.secrets, body, message_id=str(delivery.id), timestamp=int(time.time())
            ),
        }
        timeouts = {"timeout": {"connect": self._timeout}}  # shared among the addresses
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self._tls, network_backend=self._backend
            ) as http,
            http.stream(
                "POST",
                delivery.url,
                headers=list(headers.items()),
                content=body,
                extensions=timeouts,
            ) as response,
        ):
            yield response


async def _drain(response: httpcore.Response) -> None:
    """Read and discard a short response, so the receiver sees no broken connection."""
    remaining = MAX_RESPONSE_BYTES
    async with asyncio.timeout(DRAIN_SECONDS):
        async for part in response.aiter_stream():
            remaining -= len(part)
            if remaining <= 0:
                return


def _reason(error: Exception) -> Reason:
    reason: Reason = "internal"
    match error:
        case TimeoutError() | httpcore.TimeoutException():
            reason = "timeout"
        case ssrf.ForbiddenAddress():
            reason = "refused_address"
        case ssrf.NameNotResolved():
            reason = "dns"
        case httpcore.ConnectError():
            # httpcore keeps the cause only in the arguments.
            is_tls = any(isinstance(cause, ssl.SSLError) for cause in error.args)
            reason = "tls" if is_tls else "connect"
        case httpcore.NetworkError():
            reason = "disconnected"
        case httpcore.ProtocolError():
            reason = "protocol"
        case _:
            structlog.get_logger().error("webhook_failed", **log_fields(error))
    return reason
