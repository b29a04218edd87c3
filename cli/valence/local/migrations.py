"""Brings the database to the newest schema with the checkout's migrations."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from pydantic import SecretStr

from valence.local.errors import LocalError

CHECKOUT = Path(__file__).resolve().parents[3]
"""The launcher is for checkouts, where `make install` installs it editable."""


def upgrade(url: str) -> None:
    """`alembic upgrade head`, in this process: a child would import SQLAlchemy a second time."""
    if not (CHECKOUT / "alembic" / "env.py").is_file():
        raise LocalError(
            f"There are no migrations in {CHECKOUT / 'alembic'}: the local launcher needs a "
            "checkout of Valence, installed editable (`make install` does that)."
        )
    config = Config(toml_file=CHECKOUT / "pyproject.toml")
    config.attributes["database_url"] = SecretStr(url)
    command.upgrade(config, "head")
