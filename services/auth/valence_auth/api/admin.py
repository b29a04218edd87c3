"""What superusers see and do; each noun asks the database again whether its caller is one.

What changes something is audited. Reading users, the audit log or usage is not.
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
    """The accounts, newest first; `q` is a part of the username or e-mail address."""
    only = admin.Filter(query.q, query.is_active, query.is_superuser)
    found, next_cursor = await database.run(
        admin.users, principal.user_id, only, limit=query.limit, cursor=query.cursor
    )
    items = [User.model_validate(user) for user in found]
    return schemas.UserPage(items=items, next_cursor=next_cursor)


@router.get("/admin/users/{user_id}")
async def user(
    user_id: uuid.UUID, principal: Administrator, database: DatabaseDep
) -> schemas.UserRecord:
    """One account with its limits, and how many sessions and keys act for it."""
    record = await database.run(admin.user, principal.user_id, user_id)
    return schemas.UserRecord.of(record)


@router.patch("/admin/users/{user_id}")
async def change(
    user_id: uuid.UUID, body: schemas.Change, principal: Administrator, database: DatabaseDep
) -> schemas.UserRecord:
    """Disable, enable, promote or demote an account; its sessions end, everywhere within 5 s."""
    record = await database.run(
        admin.change,
        principal.user_id,
        user_id,
        is_active=body.is_active,
        is_superuser=body.is_superuser,
    )
    return schemas.UserRecord.of(record)


@router.put("/admin/users/{user_id}/limits")
async def set_limits(
    user_id: uuid.UUID,
    body: schemas.Limits,
    principal: Administrator,
    database: DatabaseDep,
    settings: SettingsDep,
) -> schemas.UserRecord:
    """Give an account a plan, and limits of its own where they are not null."""
    if body.plan not in settings.plans:
        raise Unprocessable([FieldError("body.plan", "plan", "Not a plan of this installation")])
    limits = admin.Limits(**body.model_dump())
    record = await database.run(admin.set_limits, principal.user_id, user_id, limits)
    return schemas.UserRecord.of(record)


@router.delete("/admin/users/{user_id}/sessions", status_code=204)
async def end_sessions(user_id: uuid.UUID, principal: Administrator, database: DatabaseDep) -> None:
    """Log an account out everywhere, within 5 s; its API keys stay."""
    await database.run(admin.end_sessions, principal.user_id, user_id)


@router.delete("/admin/users/{user_id}", status_code=204)
async def erase(user_id: uuid.UUID, principal: Administrator, database: DatabaseDep) -> None:
    """Erase an account with all that is its own."""
    await database.run(admin.erase, principal.user_id, user_id)


@router.get("/admin/audit")
async def read_audit(
    principal: Administrator,
    database: DatabaseDep,
    query: Annotated[schemas.AuditQuery, Query()],
) -> schemas.AuditPage:
    """Who did what to which thing, newest first."""
    only = audit.Filter(query.actor, query.subject, query.action, query.since, query.until)
    found, next_cursor = await database.run(
        audit.page, principal.user_id, only, limit=query.limit, cursor=query.cursor
    )
    items = [schemas.Event.model_validate(event) for event in found]
    return schemas.AuditPage(items=items, next_cursor=next_cursor)


@router.get("/admin/usage")
async def read_usage(
    principal: Administrator,
    database: DatabaseDep,
    query: Annotated[schemas.AdminUsageQuery, Query()],
) -> schemas.AdminUsagePage:
    """What one user, or everybody, asked for, by day, API key and route."""
    rows, next_cursor = await database.run(
        admin.read_usage,
        principal.user_id,
        *query.days,
        user_id=query.user,
        limit=query.limit,
        cursor=query.cursor,
    )
    items = [schemas.AdminUsageRow.of(row) for row in rows]
    return schemas.AdminUsagePage(items=items, next_cursor=next_cursor)
