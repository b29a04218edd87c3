"""What belongs to a user: the rows of any table that lead to them over foreign keys."""

from typing import Any

from support.rows import query
from valence_common.models import Base


def count_rows(url: str, user_id: Any) -> dict[str, int]:
    """How many rows of each table belong to a user; of tables that can hold any."""
    counts = {}
    for table in Base.metadata.sorted_tables:
        if condition := owned(table.name):
            statement = f"SELECT count(*) FROM {table.name} WHERE {condition}"
            [(counts[table.name],)] = query(url, statement, id=user_id)
    return counts


def owned(name: str) -> str:
    """The condition that a row of a table belongs to the user `:id`; empty if none can."""
    if name == "users":
        return "id = :id"
    for key in Base.metadata.tables[name].foreign_keys:
        column, other = key.parent.name, key.column.table.name
        return f"{column} IN (SELECT id FROM {other} WHERE {owned(other)})"
    return ""
