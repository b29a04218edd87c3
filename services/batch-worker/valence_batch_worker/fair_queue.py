"""Queues in tables: searched along their indexes only, their users taking turns."""

import uuid
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

NIL: Final = uuid.UUID(int=0)
"""Before every user."""

# Up to the LIMIT an index has the order of a queue. Statistics of a table that fills in a minute
# make the planner sort all of it for every claim, or read all of it, so it may do neither.
_FOLLOW_INDEX = text("""
SELECT set_config(name, 'off', true)
FROM unnest(ARRAY['enable_sort', 'enable_seqscan', 'enable_bitmapscan']) AS name
""")


def follow_index(session: Session) -> None:
    """For the rest of the transaction, let queues be searched along their indexes only."""
    session.execute(_FOLLOW_INDEX)


def round_robin_users(waiting: str) -> str:
    """SQL of a recursive table `turn`: the users with rows in `waiting`, each once.

    They go from the one after `:after` around to that one itself, in the rows that have `begun`:
    one step along an index that begins with `user_id` for each that is looked at, however many
    rows they have. `waiting` is a table and a condition.
    """
    return f"""turn (user_id, around, begun) AS (
    SELECT CAST(:after AS uuid), false, false
    UNION ALL
    SELECT later.user_id, later.around, true
    FROM turn, LATERAL (
        (SELECT user_id, turn.around AS around FROM {waiting} AND user_id > turn.user_id
        ORDER BY user_id LIMIT 1)
        UNION ALL
        (SELECT user_id, true FROM {waiting} AND NOT turn.around ORDER BY user_id LIMIT 1)
        LIMIT 1
    ) AS later
    WHERE NOT (later.around AND later.user_id > :after)
)"""  # noqa: S608 - constants of our modules
