"""Who a request acts for, and that they may: what stands before every route that is not public."""

from typing import Annotated, Any, Protocol

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer

from valence_common import api_keys
from valence_common.problems import (
    InsufficientScope,
    InvalidCredential,
    NotAuthenticated,
    Unavailable,
)
from valence_common.security import SCOPES, Principal, verify

KEY_HEADER = "X-API-Key"

_token = OAuth2PasswordBearer(tokenUrl="/api/v1/auth/login", scopes=SCOPES, auto_error=False)
_key = APIKeyHeader(name=KEY_HEADER, auto_error=False)


class KeyVerifier(Protocol):
    """What a service that takes API keys puts into `app.state.api_keys`."""

    async def verify(self, key: str) -> Principal:
        """The key's principal; raises `InvalidCredential`, or `Unavailable` if nobody knows."""
        ...


class Meter(Protocol):
    """What a service whose use is limited puts into `app.state.meter`."""

    async def count(self, request: Request, principal: Principal) -> None:
        """Count one request; raises `TooManyRequests`."""
        ...


class Access:
    """The dependency of a route that needs a credential, and a `scope` if that is named.

    `StrictRoute` asks it before the request's body is read; asked again, it remembers.
    """

    def __init__(self, scope: str | None = None):
        self.scope = scope

    async def __call__(
        self,
        request: Request,
        _documented_token: Annotated[str | None, Depends(_token)] = None,
        _documented_key: Annotated[str | None, Depends(_key)] = None,
    ) -> Principal:
        """The principal; raises the 401, 403, 429 or 503 that keeps the request out."""
        known: dict[Access, Principal] = request.scope["state"].setdefault("access", {})
        if self not in known:
            principal = await _authenticate(request)
            if self.scope is not None and self.scope not in principal.scopes:
                raise InsufficientScope(self.scope)
            meter: Meter | None = request.app.state.meter
            if meter is not None:
                await meter.count(request, principal)
            known[self] = principal
        return known[self]


async def _authenticate(request: Request) -> Principal:
    """The principal of exactly one credential, which nobody has revoked."""
    revocations = request.app.state.revocations
    principal = await _verify(request)
    if not revocations.known:
        raise Unavailable("postgres")
    if principal.credential_id in revocations:
        raise InvalidCredential
    return principal


async def _verify(request: Request) -> Principal:
    tokens = request.headers.getlist("authorization")
    keys = request.headers.getlist(KEY_HEADER)
    if not tokens and not keys:
        raise NotAuthenticated
    if len(tokens) + len(keys) > 1:
        raise InvalidCredential
    if keys:
        return await _verify_key(request, keys[0])
    scheme, _space, token = tokens[0].partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidCredential
    if token.startswith(api_keys.PREFIX):
        return await _verify_key(request, token)
    return verify(request.app.state.keyring, token)


async def _verify_key(request: Request, key: str) -> Principal:
    verifier: KeyVerifier | None = request.app.state.api_keys
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
