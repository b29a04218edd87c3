"""Webhooks in a take-out: what was told and when, and no secret."""

import json

from support.rows import query
from support.stack import Account, Stack
from valence_auth.schemas import privacy as schemas
from valence_common.db import new_id

EXPORT = "/api/v1/users/me/export"
HOOK = "https://example.com/hook"


def test_take_out_holds_webhooks(stack: Stack, account: Account, database_url: str) -> None:
    """One's own deliveries and the ids of one's secrets; the URL stands with its batch."""
    ids = {}
    for who in (account, stack.account()):
        batch, delivery, secret = stack.submit(who, ["good"]), str(new_id()), str(new_id())
        stack.finish(who, batch)
        query(database_url, "UPDATE batches SET webhook_url = :u WHERE id = :id", u=HOOK, id=batch)
        query(
            database_url,
            "INSERT INTO webhook_deliveries (id, batch_id, user_id, event, attempts)"
            " VALUES (:id, :batch, :user, 'batch.completed', 3)",
            id=delivery,
            batch=batch,
            user=who.id,
        )
        query(
            database_url,
            "INSERT INTO webhook_secrets (id, user_id, secret) VALUES (:id, :user, 'whsec_hidden')",
            id=secret,
            user=who.id,
        )
        ids[who.id] = batch, delivery, secret
    answer = stack.get(EXPORT, account)
    assert "whsec_hidden" not in answer.text
    schemas.Takeout.model_validate_json(answer.text.replace("text_sha256", "text_hash"))
    document = json.loads(answer.text)
    batch, delivery, secret = ids[account.id]
    assert [(batch, HOOK)] == [(b["id"], b["webhook_url"]) for b in document["batches"]]
    assert [(delivery, batch, "batch.completed", "pending", 3)] == [
        tuple(d[name] for name in ("id", "batch_id", "event", "status", "attempts"))
        for d in document["webhook_deliveries"]
    ]
    assert [secret] == [each["id"] for each in document["webhook_secrets"]]
