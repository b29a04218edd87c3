"""What all tables share: the metadata with its naming convention, and the types of columns."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Double, LargeBinary, MetaData, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The metadata with its naming convention, and the column types of Python's types."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way
        datetime: DateTime(timezone=True),
        uuid.UUID: Uuid(),
        dict[str, Any]: JSONB(),
        bytes: LargeBinary(),
        float: Double(),
    }


def one_of(column: str, *values: str) -> str:
    """The CHECK that a column holds one of these."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
