"""Authentication and authorisation of requests, for every route that is not public.

WebSockets use the same code. Browsers cannot set their headers, so a WebSocket may also send its
credential as a subprotocol, `bearer.<token>` or `key.<key>`, in addition to the protocol itself.
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
    """Documents access tokens in OpenAPI; FastAPI's class cannot read a WebSocket."""

    async def __call__(self, _: HTTPConnection) -> None:
        return None


class _Key(APIKeyHeader):
    """Documents API keys in OpenAPI."""

    async def __call__(self, _: HTTPConnection) -> None:
        return None


_token = _Token(
    tokenUrl="/api/v1/auth/login", scopes=SCOPES, scheme_name=OAuth2PasswordBearer.__name__
)
_key = _Key(name=KEY_HEADER, scheme_name=APIKeyHeader.__name__)


class Access:
    """The dependency of a route that requires a credential, with `scope` if one is given.

    `StrictRoute` calls it before the body is read; the second call returns the same principal.
    """

    def __init__(self, scope: str | None = None):
        self.scope = scope

    async def __call__(
        self,
        connection: HTTPConnection,
        _documented_token: Annotated[None, Depends(_token)] = None,
        _documented_key: Annotated[None, Depends(_key)] = None,
    ) -> Principal:
        """Return the principal; raise the 401, 403, 429 or 503 that rejects the request."""
        principals = request_state(connection.scope).principals
        if self not in principals:
            principal = await authenticate(connection)
            if self.scope is not None and self.scope not in principal.scopes:
                raise InsufficientScope(self.scope)
            meter = resources(connection.app).meter
            if meter is not None:
                await meter.count(connection, principal)
            principals[self] = principal
        return principals[self]


async def authenticate(connection: HTTPConnection) -> Principal:
    """Return the principal of the request's one credential; raise a 401 or 503.

    Open streams call this again from time to time, since the credential may be revoked.
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
        raise InvalidCredential  # this service accepts no API keys
    return await verifier.verify(key)


def requires(scope: str) -> Any:
    """Return the dependency of a route that requires a credential with this scope."""
    return Security(Access(scope), scopes=[scope])


def public() -> None:
    """Mark a route that needs no credential; a test rejects routes without either dependency."""


Authenticated = Annotated[Principal, Security(Access())]
Public = Depends(public)
