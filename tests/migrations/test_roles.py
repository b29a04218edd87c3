"""Roles: each service's role has the rights that its work needs, and no more."""

import asyncio
import uuid
from datetime import timedelta
from functools import partial

from pydantic import SecretStr
from sqlalchemy import select

from support.batches import accept, claim, make_user, score
from support.files import store
from support.owned_rows import count_rows
from support.roles import ROLES, RoleDatabase
from support.rows import execute, query
from valence_auth import data_export
from valence_auth import erasure as auth_erasure
from valence_batch_worker.batches import chunks
from valence_batch_worker.cleanup import bulk_delete, retention
from valence_batch_worker.cleanup import erasure as worker_erasure
from valence_batch_worker.outbox_relay import STREAM, OutboxRelay
from valence_batch_worker.settings import Settings
from valence_batch_worker.webhooks import deliveries as queue
from valence_common import audit
from valence_common.db import Database
from valence_common.models import Batch, User
from valence_common.redis_client import blocking_client
from valence_inference.batches import deliveries, export, lifecycle, summary, webhook_secrets
from valence_inference.batches import status as batch_status


def test_roles_get_their_rows_and_no_more(migrated: RoleDatabase) -> None:
    assert migrated.may("auth", "SELECT", "users", "password_hash")
    assert migrated.may("auth", "SELECT", "predictions")  # for data exports
    assert not migrated.may("auth", "INSERT", "predictions")
    for service in ("inference", "worker"):
        assert migrated.may(service, "SELECT", "users", "id")
    for privilege in ("SELECT", "INSERT"):
        assert migrated.may("inference", privilege, "predictions")
    for column in ("username", "email", "password_hash"):
        assert not migrated.may("inference", "SELECT", "users", column)
        assert not migrated.may("worker", "SELECT", "users", column)
    assert not migrated.may("inference", "SELECT", "refresh_tokens", "token_hash")
    assert not migrated.may("inference", "INSERT", "revocations")
    assert not migrated.may("worker", "SELECT", "predictions", "text")
    assert not migrated.may("worker", "SELECT", "audit_events", "details")
    assert not migrated.may("worker", "UPDATE", "audit_events", "action")
    assert migrated.may("worker", "UPDATE", "audit_events", "actor_id")  # for erasure
    assert migrated.may("worker", "INSERT", "predictions", "text")


def test_roles_suffice_for_export_erasure_and_retention(migrated: RoleDatabase) -> None:
    """Auth exports a user's data and erases the names; the worker deletes rows."""
    auth = Database(SecretStr(migrated.url_of("auth")), pool_size=1, timeout=10, pooled=False)
    worker = Database(SecretStr(migrated.url_of("worker")), pool_size=1, timeout=10, pooled=False)
    inference = Database(
        SecretStr(migrated.url_of("inference")), pool_size=1, timeout=10, pooled=False
    )
    with auth.transaction() as session:
        user = session.get_one(User, make_user(session))
    with inference.transaction() as session:
        accept(session, user.id, ["a", "b"], chunk_texts=1, key="k")
    with worker.transaction() as session:
        mine = claim(session)
        chunks.complete(session, mine, score(mine.texts), "m", store_texts=False)

    async def export_data() -> bytes:
        return b"".join([chunk async for chunk in await data_export.start(auth, user.id)])

    assert b'"sentiment":"positive"' in asyncio.run(export_data())
    with auth.transaction() as session:
        auth_erasure.erase(session, user)
    assert bulk_delete.delete_step(worker, "erasure", worker_erasure.erase_step) > 0
    assert {0} == set(count_rows(migrated.url, user.id).values())
    settings = Settings(
        database_url=SecretStr(migrated.url_of("worker")),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),
        retain_history_days=1,
        retain_batches_days=1,
        retain_events_days=1,
    )
    for reason, step in retention.delete_steps(settings, lambda: 1).items():
        bulk_delete.delete_step(worker, reason, step)


def test_roles_suffice_for_the_lifecycle_of_batches(migrated: RoleDatabase) -> None:
    """Inference reads, cancels, retries and deletes batches; the worker deletes the rows."""
    owner, worker, inference = (
        Database(SecretStr(migrated.url_of(role)), pool_size=1, timeout=10, pooled=False)
        for role in ("owner", "worker", "inference")
    )
    with owner.transaction() as session:
        user = make_user(session)
        failed = store(session, user, ["a"], sizes=[1], failed={0}, status="failed")
        live = store(session, user, ["a"], status="processing", finished_at=None)
    for operation in (
        partial(lifecycle.retry, texts=1, max_inline=1),
        partial(lifecycle.cancel, max_inline=1),
        lifecycle.delete,
    ):
        with inference.transaction() as session:
            operation(session, user, failed)
    with inference.transaction() as session:
        lifecycle.cancel(session, user, live, max_inline=1)
    with inference.transaction() as session:
        assert 1 == len(export.read_page(session, user, live, start=0, limit=9)[0])
    with inference.transaction() as session:
        summary._read(session, user, live, "m")
    with inference.transaction() as session:
        page, _ = batch_status.read_page(
            session, user, batch_status.BatchFilter(), limit=9, cursor=None
        )
        assert [live] == [status.batch.id for status in page]
    assert bulk_delete.delete_step(worker, "deleted", retention.DELETED_BATCHES["deleted"]) > 0
    assert 1 == count_rows(migrated.url, user)["batches"]


def test_roles_suffice_to_publish_events(migrated: RoleDatabase, redis_url: str) -> None:
    """Each service writes events and reads none; the worker numbers, publishes and deletes them."""
    user_id = uuid.uuid4()
    for role in ROLES[1:]:
        database = Database(SecretStr(migrated.url_of(role)), pool_size=1, timeout=10, pooled=False)
        with database.transaction() as session:
            ids = {"actor_id": None, "user_id": user_id, "subject_id": user_id}
            audit.record(session, "account.registered", **ids)
    for role in ("auth", "inference"):
        assert not migrated.may(role, "SELECT", "events")
        assert not migrated.may(role, "UPDATE", "events", "number")
    assert not migrated.may("worker", "UPDATE", "events", "data")
    client = blocking_client(SecretStr(redis_url), timeout=5)
    client.delete(STREAM)
    relay = OutboxRelay(database, client)
    relay.work()
    assert [str(user_id)] * 3 == [event["user_id"] for _, event in client.xrange(STREAM)]
    execute(migrated.url, "SELECT setval('event_numbers', 1)")
    client.xadd(STREAM, {"type": "of an earlier installation"}, id="77-0")
    with database.transaction() as session:
        audit.record(session, "account.erased", **ids)
    relay.work()
    assert "78-0" == client.xrevrange(STREAM, count=1)[0][0]
    client.delete(STREAM)


def test_roles_suffice_for_webhooks(migrated: RoleDatabase) -> None:
    """Inference creates secrets that it cannot read; the worker reads, sends and logs."""
    auth, inference, worker = (
        Database(SecretStr(migrated.url_of(role)), pool_size=1, timeout=10, pooled=False)
        for role in ROLES[1:]
    )
    assert not migrated.may("inference", "SELECT", "webhook_secrets", "secret")
    assert not migrated.may("auth", "SELECT", "webhook_secrets", "secret")
    with auth.transaction() as session:
        user_id = make_user(session)
    with inference.transaction() as session:
        webhook_secrets.create_secret(session, user_id)
        _, secret = webhook_secrets.create_secret(session, user_id)
        assert 2 == len(webhook_secrets.list_secrets(session, user_id))
        url = "https://example.com/"
        batch = accept(session, user_id, ["a"], chunk_texts=1, webhook_url=url)
    with worker.transaction() as session:
        mine = claim(session)
        chunks.complete(session, mine, score(mine.texts), "m")
    with worker.transaction() as session:
        sent = queue.claim(session, lease=timedelta(seconds=1))
        assert sent is not None
        assert (url, secret, 2) == (sent.url, sent.secrets[0], len(sent.secrets))
        queue.record_outcome(session, sent, queue.Outcome(0.1, 500))
        assert (0, 0.0) == queue.measure_due(session)
        queue.delete_expired_secrets(session)
    with inference.transaction() as session:
        [log], _ = deliveries.read_page(session, user_id, batch.id, limit=1, cursor=None)
        assert [500] == [attempt.status_code for attempt in log.attempts]
        deliveries.redeliver(session, user_id, batch.id, log.delivery.id, enabled=True)
        webhook_secrets.delete_secrets(session, user_id)
    with worker.transaction() as session:
        assert bulk_delete.delete_batches(session, select(Batch.id), limit=100) > 0
    assert [(0, 0)] == query(
        migrated.url,
        "SELECT (SELECT count(*) FROM webhook_deliveries), (SELECT count(*) FROM webhook_attempts)",
    )


def test_an_extra_right_is_revoked(migrated: RoleDatabase) -> None:
    """Each upgrade grants the whole list again, and only that."""
    execute(migrated.url, f"GRANT ALL ON users TO {migrated.roles['worker']}")
    assert migrated.run("upgrade", "owner")[0] == 0
    assert not migrated.may("worker", "UPDATE", "users")
    assert migrated.may("worker", "SELECT", "batches")


def test_an_empty_role_is_an_error(role_database: RoleDatabase) -> None:
    """Without a name all services share a role; an empty name comes from a faulty template."""
    code, output = role_database.run("upgrade", "owner", AUTH_ROLE="")
    assert (code, "VALENCE_AUTH_ROLE" in output) == (78, True)


def test_a_missing_role_is_named(role_database: RoleDatabase) -> None:
    code, output = role_database.run("upgrade", "owner", AUTH_ROLE="no_such_role")
    assert code == 78
    assert "VALENCE_AUTH_ROLE names a role that does not exist: no_such_role" in output
