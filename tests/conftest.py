"""One Postgres and one Valkey for the whole run, a migrated database for each test process."""

import contextlib
import functools
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy.orm import Session

from support.invariants import Oracle
from support.stack import Account, Stack
from valence.local.postgres import Postgres
from valence.local.valkey import Valkey
from valence_common.db import make_engine

ROOT = Path(__file__).parents[1]
TEMPLATE = "template_valence"
QUICK = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}

# Every client reads all certificate authorities for its TLS, 20 ms each time, and tests make
# thousands of clients that speak none.
httpx._transports.default.create_ssl_context = functools.cache(httpx.create_ssl_context)

_stack = pytest.StashKey[contextlib.ExitStack]()
_urls = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers in the process that pytest was called in; xdist's others are told."""
    for name in [name for name in os.environ if name.startswith("VALENCE_")]:
        del os.environ[name]
    if hasattr(config, "workerinput"):
        config.stash[_urls] = config.workerinput["urls"]
        return
    if config.option.collectonly:
        return
    stack = config.stash[_stack] = contextlib.ExitStack()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="valence-tests-")))
    postgres = stack.enter_context(Postgres(folder / "postgres", settings=QUICK))
    valkey = stack.enter_context(Valkey(folder / "valkey"))
    postgres.create_database(TEMPLATE)
    migrate(postgres.url(TEMPLATE))
    config.stash[_urls] = {"postgres": postgres.url("{}"), "redis": valkey.url()}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Tell an xdist process where the servers are."""
    node.workerinput["urls"] = node.config.stash[_urls]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what `pytest_configure` started."""
    if stack := config.stash.get(_stack, None):
        stack.close()


def migrate(url: str, revision: str = "head") -> None:
    """`alembic upgrade` for one database."""
    alembic = Config(toml_file=ROOT / "pyproject.toml")
    alembic.attributes["database_url"] = SecretStr(url)
    command.upgrade(alembic, revision)


def _execute(url: str, statement: str) -> None:
    engine = make_engine(SecretStr(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """The run's Postgres, with `{}` for the database's name."""
    return request.config.stash[_urls]["postgres"]


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest, worker_id: str) -> str:
    """The run's Valkey; each test process has a database of its own."""
    number = 0 if worker_id == "master" else int(worker_id.removeprefix("gw")) + 1
    return request.config.stash[_urls]["redis"].removesuffix("/0") + f"/{number}"


@contextlib.contextmanager
def _database(postgres_url: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    _execute(postgres_url.format("postgres"), f"CREATE DATABASE {name} TEMPLATE {template}")
    yield postgres_url.format(name)
    _execute(postgres_url.format("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def database_url(postgres_url: str) -> Iterator[str]:
    """This test process's migrated database."""
    with _database(postgres_url, TEMPLATE) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database of the test's own, without a schema."""
    with _database(postgres_url, "template0") as url:
        yield url


@pytest.fixture
def own_database_url(postgres_url: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    with _database(postgres_url, TEMPLATE) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str) -> Iterator[str]:
    """A migrated database of the test file's own."""
    with _database(postgres_url, TEMPLATE) as url:
        yield url


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    """A session whose commits are savepoints of a transaction that the test's end rolls back."""
    engine = make_engine(SecretStr(database_url))
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        outer.rollback()
    engine.dispose()


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, redis_url: str
) -> Iterator[Stack]:
    """All three services, running, for tests that break nothing."""
    stack = Stack(tmp_path_factory.mktemp("stack"), database_url, redis_url)
    try:
        for name, settings in (
            ("auth", {}),
            ("inference", {}),
            ("batch_worker", {"concurrency": 1}),
        ):
            stack.start(name, ready=False, **settings)
        for service in stack.services:
            service.wait_ready()
        yield stack
    finally:
        stack.close()


@pytest.fixture
def account(stack: Stack) -> Account:
    """A new user, logged in."""
    return stack.account()


@pytest.fixture
def oracle(stack: Stack) -> Iterator[Oracle]:
    """The universal oracle: sends requests, and judges all answers and logs at the end."""
    oracle = Oracle(stack)
    yield oracle
    oracle.judge()
