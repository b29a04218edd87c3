"""Routes for a user's own API keys; they require a login, since no key manages keys."""

import uuid
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response

from valence_auth import api_keys, throttling
from valence_auth.api.dependencies import LimiterDep
from valence_auth.schemas import api_keys as schemas
from valence_auth.settings import MAX_BODY_BYTES
from valence_common import rate_limits
from valence_common.web.access import Authenticated
from valence_common.web.app import API, DatabaseDep
from valence_common.web.pagination import PageQuery
from valence_common.web.request_body import strict

MAX_GRACE_SECONDS = 86_400
router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["api-keys"])


@router.post("/api-keys", status_code=201)
async def create_key(
    body: schemas.KeyRequest,
    principal: Authenticated,
    database: DatabaseDep,
    limiter: LimiterDep,
    response: Response,
) -> schemas.NewKey:
    """Create an API key.

    The key is shown only in this response. It is accepted where texts are scored and read, and
    never for accounts.
    """
    limits = await limiter.acquire(*throttling.new_key(principal.user_id))
    response.headers.update(rate_limits.headers(limits))
    return _with_key(
        await database.run(
            api_keys.create,
            principal,
            name=body.name,
            scopes=body.scopes,
            expires_at=body.expires_at,
            per_minute=body.per_minute,
        )
    )


@router.get("/api-keys")
async def list_keys(
    principal: Authenticated,
    database: DatabaseDep,
    query: Annotated[PageQuery, Query()],
) -> schemas.KeyPage:
    """List your API keys.

    Newest first, without those that are revoked.
    """
    rows, next_cursor = await database.run(
        api_keys.page, principal.user_id, limit=query.limit, cursor=query.cursor
    )
    items = [schemas.Key.model_validate(row) for row in rows]
    return schemas.KeyPage(items=items, next_cursor=next_cursor)


@router.delete("/api-keys/{key_id}", status_code=204)
async def revoke_key(key_id: uuid.UUID, principal: Authenticated, database: DatabaseDep) -> None:
    """Revoke an API key.

    Every process rejects it within seconds.
    """
    await database.run(api_keys.revoke, principal.user_id, key_id)


@router.post("/api-keys/{key_id}/rotate", status_code=201)
async def rotate_key(
    key_id: uuid.UUID,
    principal: Authenticated,
    database: DatabaseDep,
    limiter: LimiterDep,
    response: Response,
    grace_seconds: Annotated[int, Query(ge=0, le=MAX_GRACE_SECONDS)] = 0,
) -> schemas.NewKey:
    """Replace an API key.

    The new key has the same name, scopes, limit and expiry. The old one works for `grace_seconds`
    more, by default not at all.
    """
    limits = await limiter.acquire(*throttling.new_key(principal.user_id))
    response.headers.update(rate_limits.headers(limits))
    grace = timedelta(seconds=grace_seconds)
    return _with_key(await database.run(api_keys.rotate, principal, key_id, grace=grace))


def _with_key(new: api_keys.NewApiKey) -> schemas.NewKey:
    listed = schemas.Key.model_validate(new.row)
    return schemas.NewKey(**listed.model_dump(), key=new.key)
