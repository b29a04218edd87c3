"""Two replicas of inference over servers that may break."""

from collections.abc import Iterator

import pytest

from support import faulty_model
from support.jobs import CHUNK_TEXTS
from support.servers import Ground
from support.stack import Account, Service

SETTINGS = {"chunk_texts": CHUNK_TEXTS, "redis_timeout_seconds": 2}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The web services, and no worker."""
    with Ground.laid(tmp_path_factory.mktemp("ground"), auth={}, inference=SETTINGS) as ground:
        ground.stack.environment |= faulty_model.ENVIRONMENT
        yield ground


@pytest.fixture
def service(ground: Ground) -> Service:
    """The first replica."""
    return ground.stack.running("inference")[0]


@pytest.fixture
def user(ground: Ground) -> Account:
    """A new user, logged in."""
    return ground.stack.account()
