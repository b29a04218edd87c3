"""Reading batches: in one snapshot, and along indexes whatever statistics say."""

from sqlalchemy import text
from sqlalchemy.orm import Session

# Statistics of a table that fills in a minute make the planner read all of it, or sort it.
_FOLLOW_INDEX = text("""
SELECT set_config(name, 'off', true) FROM unnest(ARRAY[
    'enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_sort'
]) AS name
""")


def repeatable_read(session: Session) -> None:
    """Let all queries of a transaction that just began see the same moment."""
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def force_index_scans(session: Session) -> None:
    """For the rest of the transaction, search tables along their indexes only."""
    session.execute(_FOLLOW_INDEX)
