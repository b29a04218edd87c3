"""The OpenID provider: discovery, the login URL, and the exchange of a code for claims.

All requests of one step share a timeout of `TIMEOUT_SECONDS`. Responses are limited in size, and
redirects are not followed. Discovery document and keys are fetched when first needed, then cached.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple, NoReturn, TypeVar
from urllib.parse import quote, urlencode

import httpx
import msgspec
import structlog
from pydantic import SecretStr

from valence_auth.oidc import id_tokens
from valence_auth.oidc.id_tokens import (
    Claims,
    ExpectedClaims,
    InvalidIdToken,
    ProviderKey,
    UnknownKey,
)
from valence_auth.oidc.login_state import LoginState
from valence_auth.settings import Settings
from valence_common.problems import Unavailable
from valence_common.setting_types import secure_url

TIMEOUT_SECONDS: Final = 5.0
MAX_RESPONSE_BYTES: Final = 64 * 1024
CACHE_SECONDS: Final = 3600.0
KEY_REFRESH_SECONDS: Final = 60.0

# RFC 6749, 4.1.2.1 and 5.2.
_ERRORS: Final = frozenset(
    {
        "access_denied",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
    }
)

T = TypeVar("T")


class ClientConfig(NamedTuple):
    """The registration of Valence at the provider."""

    issuer: str
    client_id: str
    client_secret: SecretStr
    scopes: str
    redirect_url: str

    @classmethod
    def from_settings(cls, settings: Settings) -> "ClientConfig | None":
        """Return the client of the settings, or None if they name no provider."""
        issuer, client_id = settings.oidc_issuer, settings.oidc_client_id
        secret, url = settings.oidc_client_secret, settings.oidc_redirect_url
        if issuer is None or client_id is None or secret is None or url is None:
            return None
        return cls(issuer, client_id, secret, settings.oidc_scopes, url)


class Discovery(msgspec.Struct):
    """The fields of a discovery document that are used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class _Tokens(msgspec.Struct):
    id_token: str
    access_token: str = ""


class _UserInfo(msgspec.Struct):
    sub: str
    email: Any = None
    email_verified: Any = None
    preferred_username: Any = None


class _Error(msgspec.Struct):
    error: str


class Provider:
    """The provider at which a client is registered."""

    def __init__(self, client: ClientConfig):
        self.client = client
        self._tls = httpx.create_ssl_context()
        self._lock = asyncio.Lock()
        self._discovery: Discovery | None = None
        self._keys: list[ProviderKey] = []
        self._discovered_at = self._keys_at = self._refreshed_at = float("-inf")

    async def login_url(self, state: LoginState) -> str:
        """Return the URL of the login page; raise `Unavailable` if the provider does not answer."""
        async with self._client() as http:
            endpoint = (await self._discover(http)).authorization_endpoint
        query = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": self.client.redirect_url,
            "scope": self.client.scopes,
            "state": state.state,
            "nonce": state.nonce,
            "code_challenge": state.challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def claims(self, code: str, state: LoginState) -> Claims:
        """Exchange the code for the claims of the person who logged in.

        Raise `InvalidCredential` if the provider rejects the code or its ID token is invalid, and
        `Unavailable` if it is down, slow or returns malformed responses.
        """
        async with self._client() as http:
            discovery = await self._discover(http)
            tokens = await self._exchange_code(http, discovery, code, state.verifier)
            claims = await self._verify(http, discovery, tokens.id_token, state.nonce)
            if claims.email is None and discovery.userinfo_endpoint is not None:
                await self._add_userinfo(http, discovery.userinfo_endpoint, tokens, claims)
            return claims

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Return an HTTP client, with one timeout for all its requests."""
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                httpx.AsyncClient(verify=self._tls, timeout=TIMEOUT_SECONDS) as http,
            ):
                yield http
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            _fail(type(error).__name__)
        except InvalidIdToken as error:
            log_rejection(error.reason)
            raise

    async def _discover(self, http: httpx.AsyncClient) -> Discovery:
        async with self._lock:
            if self._discovery is None or time.monotonic() - self._discovered_at > CACHE_SECONDS:
                url = f"{self.client.issuer.rstrip('/')}/.well-known/openid-configuration"
                discovery = await _get(http, url, Discovery)
                self._check(discovery)
                self._discovery, self._discovered_at = discovery, time.monotonic()
            return self._discovery

    def _check(self, discovery: Discovery) -> None:
        if discovery.issuer != self.client.issuer:
            _fail("discovery names another issuer")
        urls = [discovery.authorization_endpoint, discovery.token_endpoint, discovery.jwks_uri]
        for url in [*urls, discovery.userinfo_endpoint or self.client.issuer]:
            try:
                secure_url(url)
            except ValueError:
                _fail("discovery names an endpoint without TLS")
            if url.startswith("http:") and not self.client.issuer.startswith("http:"):
                _fail("discovery of a remote issuer names an endpoint on this machine")

    async def _exchange_code(
        self, http: httpx.AsyncClient, discovery: Discovery, code: str, verifier: str
    ) -> _Tokens:
        client, secret = self.client, self.client.client_secret.get_secret_value()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect_url,
            "code_verifier": verifier,
        }
        options: dict[str, Any] = {"data": form}
        methods = discovery.token_endpoint_auth_methods_supported
        if "client_secret_basic" in methods:
            # Form-encoded before they are joined: RFC 6749, 2.3.1.
            options["auth"] = (quote(client.client_id, ""), quote(secret, ""))
        elif "client_secret_post" in methods:
            form |= {"client_id": client.client_id, "client_secret": secret}
        else:
            _fail("the token endpoint takes no client secret")
        status, body = await _request(http, "POST", discovery.token_endpoint, **options)
        if status in {400, 401, 403}:
            raise InvalidIdToken(known_error(_decode(body, _Error).error))
        if status != 200:
            _fail(f"the token endpoint answered {status}")
        return _decode(body, _Tokens)

    async def _verify(
        self, http: httpx.AsyncClient, discovery: Discovery, token: str, nonce: str
    ) -> Claims:
        expected = ExpectedClaims(self.client.issuer, self.client.client_id, nonce)
        try:
            return id_tokens.verify(token, await self._cached_keys(http, discovery), expected)
        except UnknownKey:
            return id_tokens.verify(token, await self._refreshed_keys(http, discovery), expected)

    async def _cached_keys(
        self, http: httpx.AsyncClient, discovery: Discovery
    ) -> list[ProviderKey]:
        async with self._lock:
            if time.monotonic() - self._keys_at > CACHE_SECONDS:
                await self._fetch_keys(http, discovery)
            return self._keys

    async def _refreshed_keys(
        self, http: httpx.AsyncClient, discovery: Discovery
    ) -> list[ProviderKey]:
        """Return the keys, fetched again at most once a minute."""
        async with self._lock:
            if time.monotonic() - self._refreshed_at > KEY_REFRESH_SECONDS:
                self._refreshed_at = time.monotonic()
                await self._fetch_keys(http, discovery)
            return self._keys

    async def _fetch_keys(self, http: httpx.AsyncClient, discovery: Discovery) -> None:
        jwks = await _get(http, discovery.jwks_uri, _KeySet)
        self._keys, self._keys_at = id_tokens.usable_keys(jwks.keys), time.monotonic()

    async def _add_userinfo(
        self, http: httpx.AsyncClient, url: str, tokens: _Tokens, claims: Claims
    ) -> None:
        """Add the e-mail address and name that some providers return only from userinfo."""
        info = await _get(http, url, _UserInfo, token=tokens.access_token)
        if info.sub != claims.sub:
            raise InvalidIdToken("userinfo's sub")
        claims.email, claims.email_verified = info.email, info.email_verified
        claims.preferred_username = claims.preferred_username or info.preferred_username


async def _get(http: httpx.AsyncClient, url: str, kind: type[T], *, token: str | None = None) -> T:
    status, body = await _request(http, "GET", url, token=token)
    if status != 200:
        _fail(f"an endpoint answered {status}")
    return _decode(body, kind)


async def _request(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    token: str | None = None,
    **options: Any,
) -> tuple[int, bytes]:
    """Return status and body of one response; it is not decompressed, to limit its size."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with http.stream(method, url, headers=headers, **options) as response:
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > MAX_RESPONSE_BYTES:
                _fail("a response is too large")
        return response.status_code, bytes(body)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _fail(f"a response is no {kind.__name__.strip('_')}")


def _fail(reason: str) -> NoReturn:
    structlog.get_logger().warning("oidc_failed", reason=reason)
    raise Unavailable("oidc")


def known_error(error: str) -> str:
    """Return the name of a standard error, else `other`: the log holds no client's input."""
    return error if error in _ERRORS else "other"


def log_rejection(reason: str) -> None:
    """Log the violated rule or standard error that rejected a login."""
    structlog.get_logger().info("oidc_refused", reason=reason)
