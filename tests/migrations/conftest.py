"""Databases with roles for the tests of migrations."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from support.roles import PASSWORD, RoleDatabase
from support.rows import execute


@pytest.fixture
def role_database(empty_database_url: str) -> Iterator[RoleDatabase]:
    role_database = RoleDatabase(empty_database_url)
    database = urlsplit(empty_database_url).path[1:]
    quoted = PASSWORD.replace("'", "''")
    for role in role_database.roles.values():
        execute(role_database.url, f"CREATE ROLE {role} LOGIN PASSWORD '{quoted}'")
    execute(role_database.url, f"ALTER DATABASE {database} OWNER TO {role_database.roles['owner']}")
    yield role_database
    for role in role_database.roles.values():
        execute(role_database.url, f"REASSIGN OWNED BY {role} TO CURRENT_USER")
        execute(role_database.url, f"DROP OWNED BY {role}")
        execute(role_database.url, f"DROP ROLE {role}")
