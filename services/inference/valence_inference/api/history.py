"""The history of scored texts."""

from typing import Annotated

from fastapi import APIRouter, Query

from valence_common.web.app import API
from valence_common.web.request_body import strict
from valence_inference.api.dependencies import Historian, HistoryDep
from valence_inference.history import HistoryFilter
from valence_inference.schemas import history as schemas
from valence_inference.settings import MAX_BODY_BYTES

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["sentiment"])


@router.get("/sentiment/history")
async def history(
    principal: Historian,
    history: HistoryDep,
    query: Annotated[schemas.HistoryQuery, Query()],
) -> schemas.HistoryPage:
    """List your scored texts, newest first."""
    items, next_cursor = await history.read_page(
        principal.user_id, _filter(query), limit=query.limit, cursor=query.cursor
    )
    return schemas.HistoryPage(
        items=[schemas.HistoryItem.model_validate(item) for item in items],
        next_cursor=next_cursor,
    )


@router.delete("/sentiment/history", status_code=204)
async def erase_history(
    principal: Historian,
    history: HistoryDep,
    query: Annotated[schemas.HistoryFilter, Query()],
) -> None:
    """Delete your history, or the part that matches the filter.

    The results of batches are not affected.
    """
    await history.delete(principal.user_id, _filter(query))


def _filter(query: schemas.HistoryFilter) -> HistoryFilter:
    return HistoryFilter(query.sentiment, query.model, query.since, query.until, query.q)
