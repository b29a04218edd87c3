"""The route for a user's own usage."""

from typing import Annotated

from fastapi import APIRouter, Query

from valence_auth import usage
from valence_auth.schemas import usage as schemas
from valence_auth.settings import MAX_BODY_BYTES
from valence_common.web.access import Authenticated
from valence_common.web.app import API, DatabaseDep
from valence_common.web.request_body import strict

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["users"])


@router.get("/users/me/usage")
async def my_usage(
    principal: Authenticated,
    database: DatabaseDep,
    query: Annotated[schemas.UsageQuery, Query()],
) -> schemas.UsagePage:
    """Get your usage.

    By day, API key and route. Requests are counted within seconds.
    """
    rows, next_cursor = await database.run(
        usage.read,
        *query.days,
        user_id=principal.user_id,
        limit=query.limit,
        cursor=query.cursor,
    )
    items = [schemas.UsageRow.from_row(row) for row in rows]
    return schemas.UsagePage(items=items, next_cursor=next_cursor)
