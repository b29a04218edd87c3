"""Fair queues in tables: users are served round robin, along an index only."""

import uuid
from typing import Final

NIL: Final = uuid.UUID(int=0)
"""Sorts before every user's id."""


def round_robin_users(waiting: str) -> str:
    """Return the SQL of a recursive table `round_robin`: each user with rows in `waiting`, once.

    `waiting` is a table and a condition. The users follow in the order of their ids, from the one
    after `:last_user_id` around to that user itself; only rows with `started` hold a user. The cost
    is one step along an index that begins with `user_id` for each user visited, however many rows
    a user has.
    """
    return f"""round_robin (user_id, wrapped, started) AS (
    SELECT CAST(:last_user_id AS uuid), false, false
    UNION ALL
    SELECT later.user_id, later.wrapped, true
    FROM round_robin, LATERAL (
        (SELECT user_id, round_robin.wrapped AS wrapped FROM {waiting}
            AND user_id > round_robin.user_id
        ORDER BY user_id LIMIT 1)
        UNION ALL
        (SELECT user_id, true FROM {waiting} AND NOT round_robin.wrapped ORDER BY user_id LIMIT 1)
        LIMIT 1
    ) AS later
    WHERE NOT (later.wrapped AND later.user_id > :last_user_id)
)"""  # noqa: S608 - constants of our modules
