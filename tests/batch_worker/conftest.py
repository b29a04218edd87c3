"""Batches in a database of this folder's own: no worker of another test takes their chunks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from support import faulty_model
from support.jobs import SECONDS_A_CHUNK, Jobs
from support.servers import Ground
from valence_common.db import Database


@pytest.fixture
def database_url(own_database_url: str) -> str:
    """What `session` connects to."""
    return own_database_url


@pytest.fixture
def database(own_database_url: str) -> Iterator[Database]:
    """Real transactions, for threads that must see each other's."""
    database = Database(SecretStr(own_database_url), pool_size=8, timeout=20)
    yield database
    database.close()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Servers that may break, the web services, and no worker yet."""
    folder = tmp_path_factory.mktemp("ground")
    with Ground.laid(folder, auth={}, inference=Jobs.web_settings) as ground:
        ground.stack.environment |= faulty_model.ENVIRONMENT
        yield ground


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The odd model, a little slow."""
    return faulty_model.write(tmp_path_factory.mktemp("odd") / "odd-1", seconds=SECONDS_A_CHUNK)


@pytest.fixture
def jobs(ground: Ground, model: Path) -> Iterator[Jobs]:
    """No worker before the test, and none after."""
    yield Jobs(ground, model)
    for worker in ground.stack.running("batch_worker"):
        worker.kill()
    ground.valkey.flush()
