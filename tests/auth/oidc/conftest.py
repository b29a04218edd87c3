"""One provider and one service for all tests of this folder."""

import uuid
from collections.abc import Iterator

import pytest

from support.oidc_login import (
    Browser,
    start,
)
from support.oidc_provider import (
    OidcProvider,
)
from support.stack import Service, Stack


@pytest.fixture(scope="session")
def the_provider() -> Iterator[OidcProvider]:
    with OidcProvider() as provider:
        yield provider


@pytest.fixture(scope="session")
def valence(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, redis_url: str
) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("oidc"), database_url, redis_url)
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="session")
def auth(valence: Stack, the_provider: OidcProvider) -> Iterator[Service]:
    """The service; its log must hold no secret, whatever the tests do."""
    service = start(valence, the_provider.issuer)
    yield service
    output = service.output()
    assert "unhandled" not in output
    assert "SECRETIVE" not in output
    assert not [secret for secret in the_provider.secrets | valence.secrets if secret in output]


@pytest.fixture
def provider(the_provider: OidcProvider) -> OidcProvider:
    """An honest provider, with a person that it has not seen before."""
    the_provider.reset()
    the_provider.person_is(f"person-{uuid.uuid4().hex[:12]}")
    return the_provider


@pytest.fixture
def browser(valence: Stack, auth: Service) -> Iterator[Browser]:
    with Browser(valence, auth) as browser:
        yield browser
