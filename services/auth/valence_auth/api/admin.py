"""Routes for administrators; every function checks in the database that the caller is one.

Changes are audited; reads of users, audit log or usage are not.
"""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query

from valence_auth import admin, audit
from valence_auth.api.dependencies import SettingsDep
from valence_auth.schemas import admin as schemas
from valence_auth.schemas.accounts import User
from valence_auth.settings import MAX_BODY_BYTES
from valence_common.problems import FieldError, Unprocessable
from valence_common.security import ADMIN, Principal
from valence_common.web.access import requires
from valence_common.web.app import API, DatabaseDep
from valence_common.web.request_body import strict

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["admin"])

Administrator = Annotated[Principal, requires(ADMIN)]


@router.get("/admin/users")
async def users(
    principal: Administrator,
    database: DatabaseDep,
    query: Annotated[schemas.UserQuery, Query()],
) -> schemas.UserPage:
    """List users.

    Newest first.
    """
    user_filter = admin.UserFilter(query.q, query.is_active, query.is_superuser)
    rows, next_cursor = await database.run(
        admin.list_users, principal.user_id, user_filter, limit=query.limit, cursor=query.cursor
    )
    items = [User.model_validate(row) for row in rows]
    return schemas.UserPage(items=items, next_cursor=next_cursor)


@router.get("/admin/users/{user_id}")
async def user(
    user_id: uuid.UUID, principal: Administrator, database: DatabaseDep
) -> schemas.UserRecord:
    """Get a user.

    With their limits and the number of their sessions and API keys.
    """
    details = await database.run(admin.get_user, principal.user_id, user_id)
    return schemas.UserRecord.from_details(details)


@router.patch("/admin/users/{user_id}")
async def change(
    user_id: uuid.UUID, body: schemas.Change, principal: Administrator, database: DatabaseDep
) -> schemas.UserRecord:
    """Disable, enable, promote or demote a user.

    All sessions of the user end; every process rejects them within 5 seconds.
    """
    details = await database.run(
        admin.change,
        principal.user_id,
        user_id,
        is_active=body.is_active,
        is_superuser=body.is_superuser,
    )
    return schemas.UserRecord.from_details(details)


@router.put("/admin/users/{user_id}/limits")
async def set_limits(
    user_id: uuid.UUID,
    body: schemas.Limits,
    principal: Administrator,
    database: DatabaseDep,
    settings: SettingsDep,
) -> schemas.UserRecord:
    """Set a user's plan and limits.

    A limit that is not null overrides that of the plan.
    """
    if body.plan not in settings.plans:
        raise Unprocessable(
            [FieldError("body.plan", "plan", "This installation has no plan of that name")]
        )
    limits = admin.UserLimits(**body.model_dump())
    details = await database.run(admin.set_limits, principal.user_id, user_id, limits)
    return schemas.UserRecord.from_details(details)


@router.delete("/admin/users/{user_id}/sessions", status_code=204)
async def end_sessions(user_id: uuid.UUID, principal: Administrator, database: DatabaseDep) -> None:
    """End all sessions of a user.

    Every process rejects them within 5 seconds. API keys stay valid.
    """
    await database.run(admin.end_sessions, principal.user_id, user_id)


@router.delete("/admin/users/{user_id}", status_code=204)
async def erase(user_id: uuid.UUID, principal: Administrator, database: DatabaseDep) -> None:
    """Erase a user and all their data."""
    await database.run(admin.erase, principal.user_id, user_id)


@router.get("/admin/audit")
async def read_audit(
    principal: Administrator,
    database: DatabaseDep,
    query: Annotated[schemas.AuditQuery, Query()],
) -> schemas.AuditPage:
    """List audit entries.

    Newest first.
    """
    audit_filter = audit.AuditFilter(
        query.actor, query.subject, query.action, query.since, query.until
    )
    rows, next_cursor = await database.run(
        audit.page, principal.user_id, audit_filter, limit=query.limit, cursor=query.cursor
    )
    items = [schemas.Event.model_validate(row) for row in rows]
    return schemas.AuditPage(items=items, next_cursor=next_cursor)


@router.get("/admin/usage")
async def read_usage(
    principal: Administrator,
    database: DatabaseDep,
    query: Annotated[schemas.AdminUsageQuery, Query()],
) -> schemas.AdminUsagePage:
    """Get the usage of one user or all.

    By day, API key and route.
    """
    rows, next_cursor = await database.run(
        admin.read_usage,
        principal.user_id,
        *query.days,
        user_id=query.user,
        limit=query.limit,
        cursor=query.cursor,
    )
    items = [schemas.AdminUsageRow.from_row(row) for row in rows]
    return schemas.AdminUsagePage(items=items, next_cursor=next_cursor)
