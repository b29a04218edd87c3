"""Databases with roles for the tests of migrations."""

import contextlib
from collections.abc import Iterator

import pytest

from support.databases import new_database
from support.roles import PASSWORD, RoleDatabase
from support.rows import disconnect, execute


@contextlib.contextmanager
def with_roles(postgres_url: str) -> Iterator[RoleDatabase]:
    """An empty database and its roles, which are dropped in the end."""
    with new_database(postgres_url, "template0") as url:
        role_database = RoleDatabase(url)
        quoted = PASSWORD.replace("'", "''")
        for role in role_database.roles.values():
            execute(url, f"CREATE ROLE {role} LOGIN PASSWORD '{quoted}'")
        role_database.give_to_owner()
        yield role_database
        for role in role_database.roles.values():
            execute(url, f"REASSIGN OWNED BY {role} TO CURRENT_USER")
            execute(url, f"DROP OWNED BY {role}")
            execute(url, f"DROP ROLE {role}")


@pytest.fixture
def role_database(postgres_url: str) -> Iterator[RoleDatabase]:
    """An empty database that belongs to one of its roles."""
    with with_roles(postgres_url) as role_database:
        yield role_database


@pytest.fixture(scope="module")
def _migrated(postgres_url: str) -> Iterator[RoleDatabase]:
    with with_roles(postgres_url) as role_database:
        assert role_database.run("upgrade", "owner")[0] == 0
        disconnect(role_database.url)
        yield role_database


@pytest.fixture
def migrated(_migrated: RoleDatabase, postgres_url: str) -> Iterator[RoleDatabase]:
    """A database of the test's own that its owner has migrated."""
    with new_database(postgres_url, _migrated.name) as url:
        copy = RoleDatabase(url, _migrated.roles)
        copy.give_to_owner()
        yield copy
