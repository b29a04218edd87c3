"""Who a request acts for, and that they may: what stands before every route that is not public.

A WebSocket is let in by the same code. Browsers cannot give it header fields, so it may also bring
its credential as a subprotocol: `bearer.<token>` or `key.<key>`, beside the one that is spoken.
"""

from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer
from starlette.requests import HTTPConnection

from valence_common import api_keys
from valence_common.problems import (
    InsufficientScope,
    InvalidCredential,
    NotAuthenticated,
    Unavailable,
)
from valence_common.security import SCOPES, Principal, verify
from valence_common.web.state import request_state, resources

KEY_HEADER = "X-API-Key"

TOKEN_PROTOCOL, KEY_PROTOCOL = "bearer.", "key."


class _Token(OAuth2PasswordBearer):
    """Documents that there are tokens; the library's own reads none from a WebSocket."""

    async def __call__(self, _: HTTPConnection) -> None:
        return None


class _Key(APIKeyHeader):
    """Documents that there are API keys."""

    async def __call__(self, _: HTTPConnection) -> None:
        return None


_token = _Token(
    tokenUrl="/api/v1/auth/login", scopes=SCOPES, scheme_name=OAuth2PasswordBearer.__name__
)
_key = _Key(name=KEY_HEADER, scheme_name=APIKeyHeader.__name__)


class Access:
    """The dependency of a route that needs a credential, and a `scope` if that is named.

    `StrictRoute` asks it before the request's body is read; asked again, it remembers.
    """

    def __init__(self, scope: str | None = None):
        self.scope = scope

    async def __call__(
        self,
        connection: HTTPConnection,
        _documented_token: Annotated[None, Depends(_token)] = None,
        _documented_key: Annotated[None, Depends(_key)] = None,
    ) -> Principal:
        """The principal; raises the 401, 403, 429 or 503 that keeps the request out."""
        known = request_state(connection.scope).principals
        if self not in known:
            principal = await authenticate(connection)
            if self.scope is not None and self.scope not in principal.scopes:
                raise InsufficientScope(self.scope)
            meter = resources(connection.app).meter
            if meter is not None:
                await meter.count(connection, principal)
            known[self] = principal
        return known[self]


async def authenticate(connection: HTTPConnection) -> Principal:
    """The principal of exactly one credential, which nobody has revoked.

    What stays open asks again every now and then. Raises the 401 or 503.
    """
    revocations = resources(connection.app).revocations
    principal = await _verify(connection)
    if not revocations.loaded:
        raise Unavailable("postgres")
    if principal.credential_id in revocations:
        raise InvalidCredential
    return principal


async def _verify(connection: HTTPConnection) -> Principal:
    tokens = connection.headers.getlist("authorization")
    keys = connection.headers.getlist(KEY_HEADER)
    for name in connection.scope.get("subprotocols", ()):
        if name.startswith(TOKEN_PROTOCOL):
            tokens.append(f"Bearer {name.removeprefix(TOKEN_PROTOCOL)}")
        elif name.startswith(KEY_PROTOCOL):
            keys.append(name.removeprefix(KEY_PROTOCOL))
    if not tokens and not keys:
        raise NotAuthenticated
    if len(tokens) + len(keys) > 1:
        raise InvalidCredential
    if keys:
        return await _verify_key(connection, keys[0])
    scheme, _space, token = tokens[0].partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidCredential
    if token.startswith(api_keys.PREFIX):
        return await _verify_key(connection, token)
    return verify(resources(connection.app).keyring, token)


async def _verify_key(connection: HTTPConnection, key: str) -> Principal:
    verifier = resources(connection.app).api_keys
    if verifier is None:
        raise InvalidCredential  # keys manage no accounts
    return await verifier.verify(key)


def requires(scope: str) -> Any:
    """The dependency of a route that needs a credential with this scope."""
    return Security(Access(scope), scopes=[scope])


def public() -> None:
    """The decision that a route needs no credential; a test finds routes that decided nothing."""


Authenticated = Annotated[Principal, Security(Access())]
Public = Depends(public)
