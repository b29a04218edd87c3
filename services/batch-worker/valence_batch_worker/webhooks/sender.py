"""One attempt: a signed POST past the guard, within one deadline, whose answer is hardly read."""

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
from valence_batch_worker.webhooks.signature import signature
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
"""All that an attempt's `error` can say; never a word of the receiver's."""


class Sender:
    """Sends, as often at once as it is asked to."""

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
        # The authorities of httpx's bundle, or those of SSL_CERT_FILE.
        self._tls = httpx.create_ssl_context()
        self._backend = ssrf.GuardedBackend(allowed_networks, resolve)

    async def send(self, delivery: Delivery) -> Outcome:
        """Try once; whatever happens is an outcome."""
        started = time.monotonic()
        status, error = await self._try(delivery)
        if status is not None and 300 <= status < 400:
            error = "redirect"
        return Outcome(round(time.monotonic() - started, 3), status, error)

    async def _try(self, delivery: Delivery) -> tuple[int | None, Reason | None]:
        if not delivery.secrets:
            return None, "no_secret"
        if urlsplit(delivery.url).scheme not in self._schemes:
            return None, "refused_url"
        status: int | None = None
        try:
            async with asyncio.timeout(self._timeout), self._post(delivery) as answer:
                status = answer.status
                await _drain(answer)
        except Exception as error:  # noqa: BLE001 - the attempt must be written down in any case
            # Once the status has come, nothing that befalls the rest of the answer changes it.
            return (None, _reason(error)) if status is None else (status, None)
        return status, None

    @contextlib.asynccontextmanager
    async def _post(self, delivery: Delivery) -> AsyncIterator[httpcore.Response]:
        body = msgspec.json.encode(delivery.message)
        headers: dict[str | bytes, str | bytes] = {
            "Content-Type": "application/json",
            "Connection": "close",
            "User-Agent": USER_AGENT,
            "Valence-Delivery": str(delivery.id),
            "Valence-Event": delivery.event,
            "Valence-Signature": signature(delivery.secrets, body, at=int(time.time())),
        }
        timeouts = {"timeout": {"connect": self._timeout}}  # for sharing it among addresses
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self._tls, network_backend=self._backend
            ) as http,
            http.stream(
                "POST", delivery.url, headers=headers, content=body, extensions=timeouts
            ) as answer,
        ):
            yield answer


async def _drain(answer: httpcore.Response) -> None:
    """Read a little and drop it, so that a receiver that writes a word is not cut off."""
    left = MAX_RESPONSE_BYTES
    async with asyncio.timeout(DRAIN_SECONDS):
        async for part in answer.aiter_stream():
            left -= len(part)
            if left <= 0:
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
            # httpcore keeps what it was in the arguments, and nowhere else.
            of_tls = any(isinstance(cause, ssl.SSLError) for cause in error.args)
            reason = "tls" if of_tls else "connect"
        case httpcore.NetworkError():
            reason = "disconnected"
        case httpcore.ProtocolError():
            reason = "protocol"
        case _:
            structlog.get_logger().error("webhook_failed", **log_fields(error))
    return reason
