"""Databases whose services have roles of their own, as an installation has them."""

import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from support.rows import execute, query

ROOT = Path(__file__).parents[2]
ROLES = ("owner", "auth", "inference", "worker")
PASSWORD = "a password of this test's"


class RoleDatabase:
    """A database that belongs to one role, and three more that may connect to it."""

    def __init__(self, url: str, roles: Mapping[str, str] | None = None):
        self.url, suffix = url, uuid.uuid4().hex[:8]
        self.roles = roles or {name: f"{name}_{suffix}" for name in ROLES}

    @property
    def name(self) -> str:
        """The database's name."""
        return urlsplit(self.url).path[1:]

    def give_to_owner(self) -> None:
        """Make the first role the database's owner."""
        execute(self.url, f"ALTER DATABASE {self.name} OWNER TO {self.roles['owner']}")

    def url_of(self, role: str) -> str:
        parts = urlsplit(self.url)
        password = PASSWORD.replace(" ", "%20").replace("'", "%27")
        login = f"{self.roles[role]}:{password}"
        return parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()

    def start(self, command: str, role: str, **settings: str) -> "subprocess.Popen[str]":
        """`python -m valence_common.migrations` with that role's rights, as an init container."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VALENCE_")}
        named = {f"{name.upper()}_ROLE": self.roles[name] for name in ROLES[1:]}
        settings = {"DATABASE_URL": self.url_of(role), **named, **settings}
        return subprocess.Popen(
            [sys.executable, "-m", "valence_common.migrations", command],
            cwd=ROOT,
            env=environment | {f"VALENCE_{k}": v for k, v in settings.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str, role: str, **settings: str) -> tuple[int, str]:
        """Its exit code and what it said."""
        process = self.start(command, role, **settings)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def may(self, role: str, privilege: str, table: str, column: str = "id") -> bool:
        ((answer,),) = query(
            self.url,
            f"SELECT has_column_privilege('{self.roles[role]}', '{table}', '{column}',"
            f" '{privilege}')",
        )
        return bool(answer)
