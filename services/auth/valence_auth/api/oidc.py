"""Routes for login with an OpenID provider; they answer 404 where none is configured."""

import secrets
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from valence_auth import throttling
from valence_auth.api.dependencies import (
    AddressDep,
    LimiterDep,
    SessionRequestDep,
    SettingsDep,
    tokens,
)
from valence_auth.oidc import identities, login_state
from valence_auth.oidc.provider import Provider, known_error, log_rejection
from valence_auth.resources import AuthResources
from valence_auth.schemas.accounts import Tokens
from valence_auth.schemas.oidc import Callback
from valence_auth.settings import MAX_BODY_BYTES
from valence_common import rate_limits
from valence_common.problems import Invalid, InvalidCredential, NotFound
from valence_common.web.access import Public
from valence_common.web.app import API, DatabaseDep, KeyringDep
from valence_common.web.request_body import strict
from valence_common.web.state import provide

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["auth"])


ConfiguredDep = Annotated[Provider | None, provide(AuthResources, lambda resources: resources.oidc)]


class LoginNotStarted(Invalid):
    """The login was started in another browser, too long ago, or never."""

    detail = "This login was not started in this browser, or too long ago; start again"


def get_provider(provider: ConfiguredDep) -> Provider:
    """Return the provider; raise `NotFound` where none is configured."""
    if provider is None:
        raise NotFound
    return provider


ProviderDep = Annotated[Provider, Depends(get_provider)]


async def throttle(
    request: Request,
    _: ProviderDep,
    address: AddressDep,
    limiter: LimiterDep,
    settings: SettingsDep,
) -> Sequence[rate_limits.LimitStatus]:
    """Charge one step of a login, since each sends requests to the provider.

    An address may try each step as often as it may register, since a login can create an account.
    """
    step = request.scope["route"].name
    return await limiter.acquire(
        *(
            hit._replace(limit=hit.limit._replace(name=f"oidc-{step}"))
            for hit in throttling.register(settings, address)
        )
    )


StepLimits = Annotated[Sequence[rate_limits.LimitStatus], Depends(throttle)]


@router.get(
    "/auth/oidc/login", status_code=302, response_class=RedirectResponse, dependencies=[Public]
)
async def begin(provider: ProviderDep, keyring: KeyringDep, limits: StepLimits) -> RedirectResponse:
    """Start a login with the OpenID provider.

    Redirects the browser to the provider, which redirects it to the callback. 404 where no provider
    is configured.
    """
    state = login_state.new()
    url = await provider.login_url(state)
    response = RedirectResponse(url, status_code=302, headers=rate_limits.headers(limits))
    value = login_state.encrypt(keyring, state)
    response.set_cookie(value=value, max_age=login_state.LIFETIME_SECONDS, **_cookie(provider))
    return response


@router.get("/auth/oidc/callback", dependencies=[Public])
async def callback(
    request: Request,
    provider: ProviderDep,
    query: Annotated[Callback, Query()],
    session_request: SessionRequestDep,
    database: DatabaseDep,
    keyring: KeyringDep,
    settings: SettingsDep,
    limits: StepLimits,
    response: Response,
) -> Tokens:
    """Complete a login with the OpenID provider.

    Exchanges the provider's code for tokens.
    """
    cookie = _cookie(provider)
    state = login_state.decrypt(keyring, request.cookies.get(cookie["key"], ""))
    if state is None or not _equal(state.state, query.state):
        raise LoginNotStarted
    if query.error is not None or query.iss not in {None, provider.client.issuer}:
        log_rejection("iss" if query.error is None else known_error(query.error))
        raise InvalidCredential
    if query.code is None:
        raise Invalid
    claims = await provider.claims(query.code, state)
    session_request = session_request._replace(method="oidc")
    grant = await database.run(identities.log_in, claims, session_request)
    response.headers.update(rate_limits.headers(limits))
    response.delete_cookie(**cookie)
    return tokens(keyring, settings, grant)


def _equal(expected: str, actual: str) -> bool:
    return secrets.compare_digest(expected.encode(), actual.encode())


def _cookie(provider: Provider) -> dict[str, Any]:
    """Return the attributes of the cookie; with TLS, no other site of the domain can set it."""
    secure = provider.client.redirect_url.startswith("https:")
    return {
        "key": "__Host-valence-oidc" if secure else "valence-oidc",
        "secure": secure,
        "httponly": True,
        "samesite": "lax",
    }
