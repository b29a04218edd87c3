"""The declarative base of all tables: naming convention, column types, ids."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Double, LargeBinary, MetaData, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from valence_common.db import new_id

NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The metadata with its naming convention, and the column type of each Python type."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - as SQLAlchemy declares it
        datetime: DateTime(timezone=True),
        uuid.UUID: Uuid(),
        dict[str, Any]: JSONB(),
        bytes: LargeBinary(),
        float: Double(),
    }


class Entity(Base):
    """A table whose primary key is a UUIDv7, so that ids are in the order of creation."""

    __abstract__ = True

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)


def one_of(column: str, *values: str) -> str:
    """Return the CHECK expression that a column holds one of the values."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
