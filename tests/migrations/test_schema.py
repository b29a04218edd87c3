"""The schema at start-up: brought up by one, waited for by all, and each role held to its rows."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from support.batches import accept, claim, make_user, score
from support.belongings import belongings
from support.files import store
from support.locks import MIGRATION, WAITERS, held
from support.rows import query
from support.servers import FragilePostgres
from support.waiting import until
from valence_auth import erasing, takeout
from valence_batch_worker import chunks, erasure, pieces, retention
from valence_batch_worker.relay import STREAM, Relay
from valence_batch_worker.settings import Settings
from valence_batch_worker.webhooks import deliveries as queue
from valence_common import records
from valence_common.cache import blocking_client
from valence_common.db import Database
from valence_common.models import User
from valence_inference import batches, deliveries, exports, steering, summary, webhooks

ROOT = Path(__file__).parents[2]
ROLES = ("owner", "auth", "inference", "worker")
PASSWORD = "a password of this test's"


class Place:
    """An empty database that belongs to one role, and three more that may connect to it."""

    def __init__(self, url: str):
        self.url, suffix = url, uuid.uuid4().hex[:8]
        self.roles = {name: f"{name}_{suffix}" for name in ROLES}

    def url_of(self, role: str) -> str:
        parts = urlsplit(self.url)
        password = PASSWORD.replace(" ", "%20").replace("'", "%27")
        login = f"{self.roles[role]}:{password}"
        return parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()

    def start(self, command: str, role: str, **settings: str) -> "subprocess.Popen[str]":
        """`python -m valence_common.schema` with that role's rights, as an init container."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VALENCE_")}
        named = {f"{name.upper()}_ROLE": self.roles[name] for name in ROLES[1:]}
        settings = {"DATABASE_URL": self.url_of(role), **named, **settings}
        return subprocess.Popen(
            [sys.executable, "-m", "valence_common.schema", command],
            cwd=ROOT,
            env=environment | {f"VALENCE_{k}": v for k, v in settings.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str, role: str, **settings: str) -> tuple[int, str]:
        """Its exit code and what it said."""
        process = self.start(command, role, **settings)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def may(self, role: str, privilege: str, table: str, column: str = "id") -> bool:
        ((answer,),) = query(
            self.url,
            f"SELECT has_column_privilege('{self.roles[role]}', '{table}', '{column}',"
            f" '{privilege}')",
        )
        return bool(answer)


@pytest.fixture
def place(empty_database_url: str) -> Iterator[Place]:
    place = Place(empty_database_url)
    database = urlsplit(empty_database_url).path[1:]
    quoted = PASSWORD.replace("'", "''")
    for role in place.roles.values():
        execute(place.url, f"CREATE ROLE {role} LOGIN PASSWORD '{quoted}'")
    execute(place.url, f"ALTER DATABASE {database} OWNER TO {place.roles['owner']}")
    yield place
    for role in place.roles.values():
        execute(place.url, f"REASSIGN OWNED BY {role} TO CURRENT_USER")
        execute(place.url, f"DROP OWNED BY {role}")
        execute(place.url, f"DROP ROLE {role}")


def execute(url: str, statement: str) -> None:
    """One statement, committed."""
    import psycopg2

    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    connection.autocommit = True
    connection.cursor().execute(statement)
    connection.close()


def test_case_046_all_start_at_once(place: Place) -> None:
    """Three who upgrade and two who wait, on an empty database: one migrates, all go on."""
    waiting = [place.start("wait", role) for role in ("inference", "worker")]
    upgrading = [place.start("upgrade", "owner") for _ in range(3)]
    said = [process.communicate(timeout=90)[0] for process in waiting + upgrading]
    assert [process.returncode for process in waiting + upgrading] == [0] * 5, said
    assert sum("Running upgrade  -> 0001" in text for text in said) == 1


def test_roles_get_their_rows_and_no_more(place: Place) -> None:
    assert place.run("upgrade", "owner")[0] == 0
    assert place.may("auth", "SELECT", "users", "password_hash")
    assert place.may("auth", "SELECT", "predictions")  # a take-out
    assert not place.may("auth", "INSERT", "predictions")
    for service in ("inference", "worker"):
        assert place.may(service, "SELECT", "users", "id")
    for privilege in ("SELECT", "INSERT"):
        assert place.may("inference", privilege, "predictions")
    for column in ("username", "email", "password_hash"):
        assert not place.may("inference", "SELECT", "users", column)
        assert not place.may("worker", "SELECT", "users", column)
    assert not place.may("inference", "SELECT", "refresh_tokens", "token_hash")
    assert not place.may("inference", "INSERT", "revocations")
    assert not place.may("worker", "SELECT", "predictions", "text")
    assert not place.may("worker", "SELECT", "audit_events", "details")
    assert not place.may("worker", "UPDATE", "audit_events", "action")
    assert place.may("worker", "UPDATE", "audit_events", "actor_id")  # of one who is erased
    assert place.may("worker", "INSERT", "predictions", "text")


def test_roles_suffice_to_take_out_erase_and_forget(place: Place) -> None:
    """Auth reads all that is a user's and takes the names; the worker deletes it, and old rows."""
    assert place.run("upgrade", "owner")[0] == 0
    auth = Database(SecretStr(place.url_of("auth")), pool_size=1, timeout=10, pooled=False)
    worker = Database(SecretStr(place.url_of("worker")), pool_size=1, timeout=10, pooled=False)
    inference = Database(
        SecretStr(place.url_of("inference")), pool_size=1, timeout=10, pooled=False
    )
    with auth.transaction() as session:
        user = session.get_one(User, make_user(session))
    with inference.transaction() as session:
        accept(session, user.id, ["a", "b"], chunk_texts=1, key="k")
    with worker.transaction() as session:
        mine = claim(session)
        chunks.complete(session, mine, score(mine.texts), "m", store_texts=False)

    async def take_out() -> bytes:
        return b"".join([piece async for piece in await takeout.begin(auth, user.id)])

    assert b'"sentiment":"positive"' in asyncio.run(take_out())
    with auth.transaction() as session:
        erasing.erase(session, user)
    assert pieces.delete_piece(worker, "erasure", erasure.erase_piece) > 0
    assert {0} == set(belongings(place.url, user.id).values())
    settings = Settings(
        database_url=SecretStr(place.url_of("worker")),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),
        retain_history_days=1,
        retain_batches_days=1,
        retain_events_days=1,
    )
    for reason, piece in retention.pieces(settings).items():
        pieces.delete_piece(worker, reason, piece)


def test_roles_suffice_to_steer_batches(place: Place) -> None:
    """Inference reads, cancels, retries and deletes; the worker deletes the rows."""
    assert place.run("upgrade", "owner")[0] == 0
    owner, worker, inference = (
        Database(SecretStr(place.url_of(role)), pool_size=1, timeout=10, pooled=False)
        for role in ("owner", "worker", "inference")
    )
    with owner.transaction() as session:
        user = make_user(session)
        failed = store(session, user, ["a"], sizes=[1], failed={0}, status="failed")
        live = store(session, user, ["a"], status="processing", finished_at=None)
    for work in (
        partial(steering.retry, texts=1, inline=1),
        partial(steering.cancel, inline=1),
        steering.delete,
    ):
        with inference.transaction() as session:
            work(session, user, failed)
    with inference.transaction() as session:
        steering.cancel(session, user, live, inline=1)
    with inference.transaction() as session:
        assert 1 == len(exports.page(session, user, live, start=0, limit=9)[0])
    with inference.transaction() as session:
        summary._read(session, user, live, "m")
    with inference.transaction() as session:
        shown, _ = batches.page(session, user, batches.Filter(), limit=9, cursor=None)
        assert [live] == [status.batch.id for status in shown]
    assert pieces.delete_piece(worker, "deleted", retention.DELETED["deleted"]) > 0
    assert 1 == belongings(place.url, user)["batches"]


def test_roles_suffice_to_tell_events(place: Place, redis_url: str) -> None:
    """Each service writes them and reads none back; the worker numbers, tells and deletes them."""
    assert place.run("upgrade", "owner")[0] == 0
    somebody = uuid.uuid4()
    for role in ROLES[1:]:
        database = Database(SecretStr(place.url_of(role)), pool_size=1, timeout=10, pooled=False)
        with database.transaction() as session:
            told = {"actor_id": None, "user_id": somebody, "subject_id": somebody}
            records.record(session, "account.registered", **told)
    for role in ("auth", "inference"):
        assert not place.may(role, "SELECT", "events")
        assert not place.may(role, "UPDATE", "events", "number")
    assert not place.may("worker", "UPDATE", "events", "data")
    client = blocking_client(SecretStr(redis_url), timeout=5)
    client.delete(STREAM)
    relay = Relay(database, client)
    relay.work()
    assert [str(somebody)] * 3 == [event["user_id"] for _, event in client.xrange(STREAM)]
    execute(place.url, "SELECT setval('event_numbers', 1)")
    client.xadd(STREAM, {"type": "of an installation before"}, id="77-0")
    with database.transaction() as session:
        records.record(session, "account.erased", **told)
    relay.work()
    assert "78-0" == client.xrevrange(STREAM, count=1)[0][0]
    client.delete(STREAM)


def test_roles_suffice_for_webhooks(place: Place) -> None:
    """Inference makes secrets that it cannot read; the worker reads, sends and logs."""
    assert place.run("upgrade", "owner")[0] == 0
    auth, inference, worker = (
        Database(SecretStr(place.url_of(role)), pool_size=1, timeout=10, pooled=False)
        for role in ROLES[1:]
    )
    assert not place.may("inference", "SELECT", "webhook_secrets", "secret")
    assert not place.may("auth", "SELECT", "webhook_secrets", "secret")
    with auth.transaction() as session:
        user_id = make_user(session)
    with inference.transaction() as session:
        webhooks.make_secret(session, user_id)
        _, secret = webhooks.make_secret(session, user_id)
        assert 2 == len(webhooks.secrets_of(session, user_id))
        url = "https://example.com/"
        batch = accept(session, user_id, ["a"], chunk_texts=1, webhook_url=url)
    with worker.transaction() as session:
        mine = claim(session)
        chunks.complete(session, mine, score(mine.texts), "m")
    with worker.transaction() as session:
        sent = queue.claim(session, lease=timedelta(seconds=1))
        assert sent is not None
        assert (url, secret, 2) == (sent.url, sent.secrets[0], len(sent.secrets))
        queue.settle(session, sent, queue.Outcome(0.1, 500))
        assert (0, 0.0) == queue.due(session)
        queue.forget_secrets(session)
    with inference.transaction() as session:
        [log], _ = deliveries.page(session, user_id, batch.id, limit=1, cursor=None)
        assert [500] == [attempt.status_code for attempt in log.attempts]
        deliveries.redeliver(session, user_id, batch.id, log.delivery.id, enabled=True)
        webhooks.end_secrets(session, user_id)


def test_a_right_too_many_is_taken_back(place: Place) -> None:
    """Each upgrade grants the whole list anew, and only that."""
    assert place.run("upgrade", "owner")[0] == 0
    execute(place.url, f"GRANT ALL ON users TO {place.roles['worker']}")
    assert place.run("upgrade", "owner")[0] == 0
    assert not place.may("worker", "UPDATE", "users")
    assert place.may("worker", "SELECT", "batches")


def test_an_empty_role_is_a_mistake(place: Place) -> None:
    """One role for all is asked for by naming none; an empty name is a template gone wrong."""
    code, said = place.run("upgrade", "owner", AUTH_ROLE="")
    assert (code, "VALENCE_AUTH_ROLE" in said) == (78, True)


def test_a_missing_role_is_named(place: Place) -> None:
    code, said = place.run("upgrade", "owner", AUTH_ROLE="nobody_at_all")
    assert code == 78
    assert "VALENCE_AUTH_ROLE names a role that does not exist: nobody_at_all" in said


def test_waiting_ends_with_a_sentence(place: Place) -> None:
    code, said = place.run("wait", "worker", SCHEMA_DEADLINE_SECONDS="2")
    assert code == 78
    assert "nobody has migrated the database" in said


def test_postgres_away_ends_with_a_sentence(place: Place) -> None:
    url = "postgresql://nobody:some-password@127.0.0.1:1/none"
    for command in ("upgrade", "wait"):
        code, said = place.run(command, "owner", DATABASE_URL=url, SCHEMA_DEADLINE_SECONDS="2")
        assert (code, "gave up after 2 s" in said) == (78, True), said
        assert "some-password" not in said


def test_waiting_for_a_turn_ends_with_a_sentence(place: Place) -> None:
    """A migration that never ends keeps no pod for ever, and no pod leaves a session behind."""
    with held(place.url, MIGRATION):
        code, said = place.run("upgrade", "owner", SCHEMA_DEADLINE_SECONDS="3")
        assert (78, True) == (code, "another migration does not end; gave up after 3 s" in said)
        assert [] == query(place.url, WAITERS)


def test_postgres_that_freezes_ends_with_a_sentence(tmp_path: Path) -> None:
    """A server that neither answers nor hangs up holds the migration up to the deadline."""
    with FragilePostgres(tmp_path) as postgres:
        place = Place(postgres.url())
        with held(place.url, MIGRATION):
            settings = {"DATABASE_URL": place.url, "SCHEMA_DEADLINE_SECONDS": "6"}
            upgrading = place.start("upgrade", "owner", **settings)
            until(lambda: query(place.url, WAITERS), within=30)
            with postgres.frozen():
                said, _ = upgrading.communicate(timeout=30)
    assert (78, True) == (upgrading.returncode, "gave up after 6 s" in said), said


def test_case_048_a_newer_schema_is_taken_as_done(place: Place) -> None:
    """After a rollback the older release meets a revision that it does not know."""
    assert place.run("upgrade", "owner")[0] == 0
    execute(place.url, "UPDATE alembic_version SET version_num = '9999'")
    for command, role in (("upgrade", "owner"), ("wait", "worker")):
        code, said = place.run(command, role)
        assert (code, "schema_is_ahead" in said) == (0, True), said
