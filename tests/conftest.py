"""One Postgres and one Valkey for each test process, with databases made from one template."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from support import faulty_model
from support.databases import TEMPLATE, new_database
from support.invariants import CheckedClient, Watch
from support.jobs import SECONDS_A_CHUNK, Jobs
from support.servers import Servers
from support.stack import Account, Stack
from valence.local.postgres import Postgres
from valence.local.valkey import Valkey
from valence_common.db import Database, make_engine

ROOT = Path(__file__).parents[1]
QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "max_connections": "200",
}

# Every client reads all certificate authorities for its TLS, 20 ms each time, and tests make
# thousands of clients that speak none.
httpx._transports.default.create_ssl_context = functools.cache(httpx.create_ssl_context)

pytest_plugins = ["support.required"]


def pytest_configure(config: pytest.Config) -> None:
    """Forget the caller's settings: services under test have their own."""
    for name in [name for name in os.environ if name.startswith("VALENCE_")]:
        del os.environ[name]


def migrate(url: str, revision: str = "head") -> None:
    """`alembic upgrade` for one database."""
    alembic = Config(toml_file=ROOT / "pyproject.toml")
    alembic.attributes["database_url"] = SecretStr(url)
    command.upgrade(alembic, revision)


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, Valkey]]:
    """A Postgres with a migrated template, and a Valkey; started when a test first needs them."""
    folder = tmp_path_factory.mktemp("servers")
    with (
        Postgres(folder / "postgres", settings=QUICK) as postgres,
        Valkey(folder / "valkey") as valkey,
    ):
        postgres.create_database(TEMPLATE)
        migrate(postgres.url(TEMPLATE))
        yield postgres, valkey


@pytest.fixture(scope="session")
def postgres_url(_servers: tuple[Postgres, Valkey]) -> str:
    """This test process's Postgres, with `{}` for the database's name."""
    return _servers[0].url("{}")


@pytest.fixture(scope="session")
def redis_url(_servers: tuple[Postgres, Valkey]) -> str:
    """This test process's Valkey."""
    return _servers[1].url()


@pytest.fixture(scope="session")
def database_url(postgres_url: str) -> Iterator[str]:
    """The database of `stack`; what a test commits to it stays for the next."""
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database of the test's own, without a schema."""
    with new_database(postgres_url, "template0") as url:
        yield url


@pytest.fixture
def own_database_url(postgres_url: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str) -> Iterator[str]:
    """A migrated database of the test file's own."""
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
def database(own_database_url: str) -> Iterator[Database]:
    """Real transactions in a database of the test's own, for threads that see each other's."""
    database = Database(SecretStr(own_database_url), pool_size=8, timeout=20)
    yield database
    database.close()


@pytest.fixture(scope="session")
def _engine(postgres_url: str) -> Iterator[Engine]:
    """Connections to a migrated database to which nothing is ever committed."""
    with new_database(postgres_url) as url:
        engine = make_engine(SecretStr(url))
        yield engine
        engine.dispose()


@pytest.fixture
def session(_engine: Engine) -> Iterator[Session]:
    """A session whose commits are savepoints of a transaction that the test's end rolls back."""
    with _engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        outer.rollback()


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, redis_url: str
) -> Iterator[Stack]:
    """All three services, running, for tests that break nothing."""
    services = {"auth": {}, "inference": {}, "batch_worker": {"concurrency": 1}}
    with Stack.started(tmp_path_factory.mktemp("stack"), database_url, redis_url, **services) as s:
        yield s


@pytest.fixture
def account(stack: Stack) -> Account:
    """A new user, logged in."""
    return stack.account()


@pytest.fixture(scope="module")
def watch(stack: Stack) -> Iterator[None]:
    """Judges the services of the stack when the tests of a module are done."""
    watch = Watch(stack)
    yield
    watch.judge()


@pytest.fixture
def checked(stack: Stack, watch: None) -> Iterator[CheckedClient]:
    """A client that judges each answer at once, and the logs after the test."""
    checked = CheckedClient(stack)
    yield checked
    checked.judge()


@pytest.fixture(scope="module")
def replicas(stack: Stack) -> Iterator[Stack]:
    """The stack with a second process of inference."""
    second = stack.start("inference")
    yield stack
    second.kill()


@pytest.fixture(scope="session")
def _web(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, redis_url: str
) -> Iterator[Stack]:
    folder, own_redis_url = tmp_path_factory.mktemp("web"), redis_url.removesuffix("/0") + "/1"
    services = {"auth": {}, "inference": {**Jobs.web_settings, "redis_timeout_seconds": 2}}
    with (
        new_database(postgres_url) as url,
        Stack.started(folder, url, own_redis_url, **services) as stack,
    ):
        stack.environment |= faulty_model.ENVIRONMENT
        yield stack


@pytest.fixture(scope="module")
def shared_web(_web: Stack) -> Iterator[Stack]:
    """`web` of the tests that break nothing; each module finds it empty."""
    yield _web
    _web.reset()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The faulty model, a little slow."""
    folder = tmp_path_factory.mktemp("model")
    return faulty_model.write(folder / "odd-1", seconds=SECONDS_A_CHUNK)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers of the module's own, to be frozen and killed, and web services."""
    folder = tmp_path_factory.mktemp("servers")
    with Servers.started(folder, auth={}, inference=Jobs.web_settings) as servers:
        servers.stack.environment |= faulty_model.ENVIRONMENT
        yield servers


@pytest.fixture
def web(request: pytest.FixtureRequest) -> Stack:
    """The web services, which cut batches into small chunks, and no worker but a test's own.

    For a fault they are those of its module's `servers`; all else shares one set.
    """
    if any(request.node.get_closest_marker(name) for name in ("faults", "slow_faults")):
        stack: Stack = request.getfixturevalue("servers").stack
    else:
        stack = request.getfixturevalue("shared_web")
    return stack


@pytest.fixture
def checked_servers(servers: Servers) -> Iterator[CheckedClient]:
    """As `checked`, for the services of the module's own `servers`."""
    watch, checked = Watch(servers.stack), CheckedClient(servers.stack)
    yield checked
    checked.judge()
    watch.judge()


@pytest.fixture
def jobs(web: Stack, model: Path) -> Iterator[Jobs]:
    """Batches for workers of the test's own; there is none before it and none after."""
    yield Jobs(web, model)
    web.stop_workers()
    web.flush()
