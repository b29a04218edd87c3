"""Two replicas of inference over servers that may break."""

from collections.abc import Iterator

import pytest

from support import faulty_model
from support.jobs import CHUNK_TEXTS
from support.servers import Servers
from support.stack import Account, Service

SETTINGS = {"chunk_texts": CHUNK_TEXTS, "redis_timeout_seconds": 2}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The web services, and no worker."""
    with Servers.started(
        tmp_path_factory.mktemp("servers"), auth={}, inference=SETTINGS
    ) as servers:
        servers.stack.environment |= faulty_model.ENVIRONMENT
        yield servers


@pytest.fixture
def service(servers: Servers) -> Service:
    """The first replica."""
    return servers.stack.running("inference")[0]


@pytest.fixture
def user(servers: Servers) -> Account:
    """A new user, logged in."""
    return servers.stack.account()
