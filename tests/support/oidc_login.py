"""What logs in with an OpenID provider in tests: a browser, and the service that it talks to."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from pydantic import SecretStr

from support.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider
from support.ports import own_port
from support.stack import Service, Stack
from valence_auth.oidc import login_state
from valence_auth.oidc.provider import ClientConfig, Provider

LOGIN, CALLBACK = "/api/v1/auth/oidc/login", "/api/v1/auth/oidc/callback"
COOKIE = "valence-oidc"


def start(stack: Stack, issuer: str, **settings: Any) -> Service:
    """An auth service that knows the provider; its port must be known before it starts."""
    port = own_port()
    service = stack.start(
        "auth",
        ready=False,
        port=port,
        oidc_issuer=issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_redirect_url=f"http://127.0.0.1:{port}{CALLBACK}",
        **settings,
    )
    service.url = f"http://127.0.0.1:{port}"
    return service.wait_ready()


class Browser(httpx.Client):
    """A client that keeps cookies, and goes where it is sent."""

    def __init__(self, stack: Stack, service: Service):
        super().__init__(base_url=service.url, trust_env=False, timeout=30)
        self.stack = stack

    def begin(self) -> httpx.Response:
        """The first step: the answer that leads to the provider."""
        answer = self.get(LOGIN)
        assert 302 == answer.status_code, answer.text
        self.stack.secrets.add(self.cookies[COOKIE])
        return answer

    def at_provider(self) -> str:
        """The second: where the provider sends us back to."""
        answer = self.get(self.begin().headers["Location"])
        assert 302 == answer.status_code, answer.text
        return answer.headers["Location"]

    def log_in(self) -> httpx.Response:
        """All three."""
        return self.keep(self.get(self.at_provider()))

    def keep(self, answer: httpx.Response) -> httpx.Response:
        """Remember the tokens that must not stand in the log."""
        if answer.status_code == 200:
            body = answer.json()
            self.stack.secrets |= {body["access_token"], body["refresh_token"]}
        return answer


def me(browser: Browser, answer: httpx.Response) -> dict[str, Any]:
    """Whose tokens these are."""
    assert 200 == answer.status_code, answer.text
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    profile = browser.get("/api/v1/users/me", headers=headers)
    assert 200 == profile.status_code, profile.text
    return dict(profile.json())


def refused(answer: httpx.Response, status: int, detail: str) -> None:
    """A problem document, and no tokens."""
    assert (status, detail) == (answer.status_code, answer.json()["detail"])
    assert "application/problem+json" == answer.headers["content-type"]


def not_believed(answer: httpx.Response) -> None:
    """The one answer to all that is no proof."""
    refused(answer, 401, "Could not validate credentials")


def as_client(provider: OidcProvider) -> Provider:
    """Valence's side of the provider, without a service around it."""
    url = f"http://127.0.0.1:1{CALLBACK}"
    secret = SecretStr(CLIENT_SECRET)
    return Provider(ClientConfig(provider.issuer, CLIENT_ID, secret, "openid email", url))


async def claims_of(client: Provider, provider: OidcProvider) -> Any:
    """What a login through it comes to."""
    transaction = login_state.new()
    async with httpx.AsyncClient(trust_env=False) as http:
        way = (await http.get(await client.login_url(transaction))).headers["Location"]
    return await client.claims(parse_qs(urlsplit(way).query)["code"][0], transaction)
