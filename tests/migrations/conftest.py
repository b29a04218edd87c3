"""Databases with roles for the tests of migrations."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from support.roles import PASSWORD, Place, execute


@pytest.fixture
def place(empty_database_url: str) -> Iterator[Place]:
    place = Place(empty_database_url)
    database = urlsplit(empty_database_url).path[1:]
    quoted = PASSWORD.replace("'", "''")
    for role in place.roles.values():
        execute(place.url, f"CREATE ROLE {role} LOGIN PASSWORD '{quoted}'")
    execute(place.url, f"ALTER DATABASE {database} OWNER TO {place.roles['owner']}")
    yield place
    for role in place.roles.values():
        execute(place.url, f"REASSIGN OWNED BY {role} TO CURRENT_USER")
        execute(place.url, f"DROP OWNED BY {role}")
        execute(place.url, f"DROP ROLE {role}")
