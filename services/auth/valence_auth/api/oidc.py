"""Login with an OpenID provider; without one in the settings these routes know nothing."""

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from valence_auth import throttling
from valence_auth.api.dependencies import AddressDep, LimiterDep, OpeningDep, SettingsDep, tokens
from valence_auth.oidc import identities, login_state
from valence_auth.oidc.provider import Provider, known_error, log_refusal
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


class NotBegun(Invalid):
    """Another browser's login, an old one, or none: whose code it is cannot be known."""

    detail = "This login was not begun in this browser, or too long ago: begin again"


def configured(provider: ConfiguredDep) -> Provider:
    """The provider; raises `NotFound` when there is none."""
    if provider is None:
        raise NotFound
    return provider


ProviderDep = Annotated[Provider, Depends(configured)]


async def throttle(
    request: Request,
    _: ProviderDep,
    address: AddressDep,
    limiter: LimiterDep,
    settings: SettingsDep,
) -> Sequence[rate_limits.LimitStatus]:
    """Count one step of a login, since each asks the provider for something.

    One address may try each as often as it may register, since a login can make an account.
    """
    step = request.scope["route"].name
    return await limiter.acquire(
        *(
            charge._replace(limit=charge.limit._replace(name=f"oidc-{step}"))
            for charge in throttling.register(settings, address)
        )
    )


Attempts = Annotated[Sequence[rate_limits.LimitStatus], Depends(throttle)]


@router.get(
    "/auth/oidc/login", status_code=302, response_class=RedirectResponse, dependencies=[Public]
)
async def begin(provider: ProviderDep, keyring: KeyringDep, left: Attempts) -> RedirectResponse:
    """Send a browser to the OpenID provider, which sends it back to the callback.

    404 where no provider is set.
    """
    transaction = login_state.begin()
    url = await provider.login_url(transaction)
    answer = RedirectResponse(url, status_code=302, headers=rate_limits.headers(left))
    sealed = login_state.seal(keyring, transaction)
    answer.set_cookie(value=sealed, max_age=login_state.LIFETIME_SECONDS, **_cookie(provider))
    return answer


@router.get("/auth/oidc/callback", dependencies=[Public])
async def callback(
    request: Request,
    provider: ProviderDep,
    query: Annotated[Callback, Query()],
    opening: OpeningDep,
    database: DatabaseDep,
    keyring: KeyringDep,
    settings: SettingsDep,
    left: Attempts,
    response: Response,
) -> Tokens:
    """Trade the code that the provider gave the browser for tokens."""
    cookie = _cookie(provider)
    transaction = login_state.unseal(keyring, request.cookies.get(cookie["key"], ""))
    if transaction is None or not _same(transaction.state, query.state):
        raise NotBegun
    if query.error is not None or query.iss not in {None, provider.client.issuer}:
        log_refusal("iss" if query.error is None else known_error(query.error))
        raise InvalidCredential
    if query.code is None:
        raise Invalid
    claims = await provider.claims(query.code, transaction)
    grant = await database.run(identities.log_in, claims, partial(opening, by="oidc"))
    response.headers.update(rate_limits.headers(left))
    response.delete_cookie(**cookie)
    return tokens(keyring, settings, grant)


def _same(known: str, given: str) -> bool:
    return secrets.compare_digest(known.encode(), given.encode())


def _cookie(provider: Provider) -> dict[str, Any]:
    """The cookie that carries a login; over TLS no other site of the domain can plant one."""
    secure = provider.client.redirect_url.startswith("https:")
    return {
        "key": "__Host-valence-oidc" if secure else "valence-oidc",
        "secure": secure,
        "httponly": True,
        "samesite": "lax",
    }
