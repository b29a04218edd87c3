"""Upgrade the database with the checkout's migrations."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from pydantic import SecretStr

from valence.local.errors import LocalError

CHECKOUT = Path(__file__).resolve().parents[3]
"""The launcher needs a checkout, in which `make install` installs it in editable mode."""


def upgrade(url: str) -> None:
    """Run `alembic upgrade head` in this process: a child would import SQLAlchemy again."""
    if not (CHECKOUT / "alembic" / "env.py").is_file():
        raise LocalError(
            f"There are no migrations in {CHECKOUT / 'alembic'}: the local launcher needs a "
            "checkout of Valence, installed with `make install`."
        )
    config = Config(toml_file=CHECKOUT / "pyproject.toml")
    config.attributes["database_url"] = SecretStr(url)
    command.upgrade(config, "head")
