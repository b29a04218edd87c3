"""One Postgres and one Valkey for each test process, with databases made from one template."""

import contextlib
import functools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy.orm import Session

from support.invariants import CheckedClient
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


def _execute(url: str, statement: str) -> None:
    engine = make_engine(SecretStr(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture(scope="session")
def _urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A Postgres with a migrated template, and a Valkey; started when a test first needs them."""
    folder = tmp_path_factory.mktemp("servers")
    with (
        Postgres(folder / "postgres", settings=QUICK) as postgres,
        Valkey(folder / "valkey") as valkey,
    ):
        postgres.create_database(TEMPLATE)
        migrate(postgres.url(TEMPLATE))
        yield postgres.url("{}"), valkey.url()


@pytest.fixture(scope="session")
def postgres_url(_urls: tuple[str, str]) -> str:
    """This test process's Postgres, with `{}` for the database's name."""
    return _urls[0]


@pytest.fixture(scope="session")
def redis_url(_urls: tuple[str, str]) -> str:
    """This test process's Valkey."""
    return _urls[1]


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
def checked(stack: Stack) -> Iterator[CheckedClient]:
    """A client that judges each answer at once, and the logs at the end."""
    checked = CheckedClient(stack)
    yield checked
    checked.judge()
