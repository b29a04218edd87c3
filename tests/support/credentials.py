"""Credentials of every kind: whole, narrow, revoked and made up."""

import uuid
from collections.abc import Sequence

from support.rows import query
from support.stack import Account, Stack
from support.tokens import decode
from support.waiting import until
from valence_common import api_keys
from valence_common.db import new_id

GARBAGE = {"Authorization": "Bearer e30.e30.e30"}


def admin(stack: Stack) -> Account:
    """A superuser, logged in."""
    return stack.account(superuser=True)


def key(stack: Stack, account: Account, scopes: Sequence[str]) -> dict[str, str]:
    """The headers of a new API key of this account."""
    key_id = new_id()
    written, secret_hash = api_keys.make(key_id)
    query(
        stack.database_url,
        "INSERT INTO api_keys (id, user_id, name, secret_hash, scopes)"
        " VALUES (:id, :user, 'made by a test', :hash, :scopes)",
        id=key_id,
        user=account.id,
        hash=secret_hash,
        scopes=list(scopes),
    )
    stack.secrets.add(written)
    return {"X-API-Key": written}


def revoked(stack: Stack) -> dict[str, str]:
    """The headers of a token whose session was ended, once every service has heard of it."""
    account = stack.account()
    claims = decode(account.token.split(".")[1])
    session_id = claims.decode().split('"sid":"')[1][:36]
    revoke = "INSERT INTO revocations (id, subject_id) VALUES (:id, :session)"
    query(stack.database_url, revoke, id=uuid.uuid4(), session=session_id)
    for path in ("/api/v1/users/me", "/api/v1/sentiment/history"):
        until(lambda path=path: stack.get(path, account).status_code == 401, timeout=5)
    return account.headers
