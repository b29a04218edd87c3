"""A database for this folder alone, so no other test's worker claims its chunks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from support import faulty_model
from support.jobs import SECONDS_A_CHUNK, Jobs
from support.servers import Servers
from valence_common.db import Database


@pytest.fixture
def database_url(own_database_url: str) -> str:
    """The database that `session` connects to."""
    return own_database_url


@pytest.fixture
def database(own_database_url: str) -> Iterator[Database]:
    """Real transactions, for threads that must see each other's."""
    database = Database(SecretStr(own_database_url), pool_size=8, timeout=20)
    yield database
    database.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that may break, the web services, and no worker yet."""
    folder = tmp_path_factory.mktemp("servers")
    with Servers.started(folder, auth={}, inference=Jobs.web_settings) as servers:
        servers.stack.environment |= faulty_model.ENVIRONMENT
        yield servers


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The faulty model, a little slow."""
    return faulty_model.write(
        tmp_path_factory.mktemp("model") / "faulty-1", seconds=SECONDS_A_CHUNK
    )


@pytest.fixture
def jobs(servers: Servers, model: Path) -> Iterator[Jobs]:
    """Without a worker before and after the test."""
    yield Jobs(servers, model)
    for worker in servers.stack.running("batch_worker"):
        worker.kill()
    servers.valkey.flush()
