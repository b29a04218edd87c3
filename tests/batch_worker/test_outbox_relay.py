"""The relay with a real Postgres and Valkey: every event once, in order, whatever fails when."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.events import Published, Reader, judge_order, numbers
from support.relays import judge, make, published, relaying, write_many
from support.rows import query
from support.servers import FragileValkey
from support.waiting import until
from valence_batch_worker import metrics, outbox_relay
from valence_batch_worker.cleanup import retention
from valence_batch_worker.cleanup.retention import Retention
from valence_batch_worker.outbox_relay import OutboxRelay
from valence_batch_worker.settings import Settings
from valence_common.audit import record
from valence_common.db import Database
from valence_common.problems import Unavailable

USER_ID = uuid.uuid4()


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FragileValkey]:
    with FragileValkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest.fixture(autouse=True)
def _empty(valkey: FragileValkey) -> None:
    valkey.flush()


def write(session: Session, n: int = 0, writer: int = 0) -> None:
    """Record an event in the transaction."""
    details = {"n": n, "writer": writer}
    action = "batch.accepted"
    record(session, action, actor_id=None, user_id=USER_ID, subject_id=USER_ID, details=details)


def test_events_are_published_in_commit_order(database: Database, valkey: FragileValkey) -> None:
    """The transaction that started first commits last: a reader in between misses nothing."""
    relay = make(database, valkey)
    with database.transaction() as first:
        write(first, 1)
        with database.transaction() as second:
            write(second, 2)
        relay.work()
        assert ['{"n": 2, "writer": 0}'] == [event["data"] for _, event in published(valkey)]
    relay.work()
    assert ['{"n": 2, "writer": 0}', '{"n": 1, "writer": 0}'] == [
        event["data"] for _, event in published(valkey)
    ]
    judge_order(published(valkey))


def test_concurrent_writers_and_two_relays(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """Overlapping transactions: each event once, and each writer's events in their order."""

    def writer(number: int) -> None:
        for n in range(40):
            with database.transaction() as session:
                write(session, n, number)
                if random.random() < 0.3:
                    time.sleep(random.random() / 50)  # so that other writers overtake

    writers = [threading.Thread(target=writer, args=(n,)) for n in range(5)]
    with Reader(valkey.url()) as reader, relaying(database, valkey, 2):
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
        until(lambda: len(reader.handled) >= 200, timeout=60, what="all events were read")
    judge(own_database_url, reader.handled)
    judge(own_database_url, published(valkey))
    for number in range(5):
        messages = [e["data"] for _, e in reader.handled if f'"writer": {number}}}' in e["data"]]
        assert [f'{{"n": {n}, "writer": {number}}}' for n in range(40)] == messages


def test_four_relays_and_a_backlog(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """More events than one round trip holds, and four relays that compete for them."""
    write_many(database, 5 * outbox_relay.MAX_EVENTS + 7)
    with relaying(database, valkey, 4):
        until(lambda: len(published(valkey)) >= 5 * outbox_relay.MAX_EVENTS + 7, timeout=60)
    judge(own_database_url, published(valkey))


FAULTS: dict[str, Callable[[FragileValkey], Any]] = {
    "FLUSHALL": FragileValkey.flush,
    "kill -9": lambda valkey: (valkey.kill(), valkey.start()),
}


@pytest.mark.parametrize("group", ["", "a group"])
@pytest.mark.parametrize("fault", ["FLUSHALL", pytest.param("kill -9", marks=pytest.mark.faults)])
def test_reader_survives_faults(
    database: Database, own_database_url: str, valkey: FragileValkey, fault: str, group: str
) -> None:
    """Redis loses its data several times: the reader handles each event once, in order."""
    with Reader(valkey.url(), group=group) as reader, relaying(database, valkey, 2):
        for round_ in range(1, 4):
            write_many(database, 300)
            until(lambda n=round_: len(reader.handled) > 300 * n - 150, timeout=60, interval=0.001)
            FAULTS[fault](valkey)
        write_many(database, 300)
        until(lambda: len(reader.handled) >= 1200, timeout=60, what="all events were read")
    judge(own_database_url, reader.handled)


@pytest.mark.parametrize("group", ["", "a group"])
def test_next_reader_continues_where_one_died(
    database: Database, own_database_url: str, valkey: FragileValkey, group: str
) -> None:
    """A reader dies while handling events; the next one misses none of a growing stream."""
    handled: Published = []
    with relaying(database, valkey):
        for round_ in range(1, 4):
            with Reader(valkey.url(), group=group, handled=handled):
                write_many(database, 400)
                until(lambda n=round_: len(handled) >= 100 * n, timeout=60, interval=0.001)
            write_many(database, 400)
        with Reader(valkey.url(), group=group, handled=handled):
            until(lambda: len(handled) >= 2400, timeout=60, what="all events were read")
    judge(own_database_url, handled)


def test_redis_loses_the_stream_before_an_append(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """Redis rejects an append after a gap: the stream starts again with the first stored event."""

    class FlushingRelay(OutboxRelay):
        flushed = False

        def _append_events(self, events: list[Any]) -> str:
            if not self.flushed:
                self.flushed = True
                valkey.flush()
            return super()._append_events(events)

    write_many(database, 3)
    make(database, valkey).work()
    write_many(database, 2)
    flushing = make(database, valkey, FlushingRelay)
    flushing.work()
    assert flushing.flushed
    judge(own_database_url, published(valkey))


@pytest.mark.parametrize("appended", [False, True])
def test_relay_dies_around_an_append(
    database: Database, own_database_url: str, valkey: FragileValkey, appended: bool
) -> None:
    """Before or just after it appends numbered events: the next relay publishes the rest, once."""

    class DyingRelay(OutboxRelay):
        def _append_events(self, events: list[Any]) -> str:
            if appended:
                super()._append_events(events)
            raise SystemExit

    write_many(database, 3)
    with pytest.raises(SystemExit):
        make(database, valkey, DyingRelay).work()
    given = query(own_database_url, "SELECT number FROM events ORDER BY number")
    write_many(database, 2)
    make(database, valkey).work()
    judge(own_database_url, published(valkey))
    assert [number for (number,) in given] == numbers(published(valkey))[:3]


def test_redis_down_or_frozen(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """The relay tries once per call; the metrics of the backlog are updated all the same."""
    relay = make(database, valkey)
    write_many(database, 3)
    relay.work()
    write_many(database, 5)
    for fault in (valkey.down(), valkey.frozen()):
        with fault, pytest.raises(Unavailable):
            relay.work()
        assert 5 == metrics.EVENTS_WAITING._value.get()
        assert 0 < metrics.EVENTS_OLDEST_SECONDS._value.get()
    before = metrics.EVENTS_PUBLISHED._value.get()
    relay.work()
    judge(own_database_url, published(valkey))
    assert before + 8 == metrics.EVENTS_PUBLISHED._value.get()  # `down` lost the first three
    assert 0 == metrics.EVENTS_WAITING._value.get() == metrics.EVENTS_OLDEST_SECONDS._value.get()


def test_retention_trims_the_stream(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """Deleted events leave the stream, down to an empty one, and numbering continues."""
    settings = Settings(database_url=SecretStr(own_database_url), redis_url=SecretStr(valkey.url()))
    relay = make(database, valkey)
    step = retention.delete_steps(settings, relay.last_published)["events"]

    def age(condition: str) -> None:
        query(
            own_database_url,
            f"UPDATE events SET created_at = created_at - interval '8 days' WHERE {condition}",
        )
        with database.transaction() as session:
            step(session, 100)
        relay.work()

    write_many(database, 10)
    relay.work()
    last = numbers(published(valkey))[-1]
    age(f"number <= {last - 4}")
    assert [last - 3, last - 2, last - 1, last] == numbers(published(valkey))
    age("true")
    assert [] == published(valkey)
    write_many(database, 1)
    relay.work()
    assert [last + 1] == numbers(published(valkey))


def test_full_redis_gets_the_events_later(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """However long it is full: numbered events that expired unpublished are kept."""
    settings = Settings(database_url=SecretStr(own_database_url), redis_url=SecretStr(valkey.url()))
    relay = make(database, valkey)
    retention_job = Retention(settings, database, relay.last_published)
    write_many(database, 3)
    relay.work()
    with valkey.client() as client:
        client.config_set("maxmemory", 1)
        write_many(database, 2 * outbox_relay.MAX_EVENTS)
        for _ in range(3):
            with pytest.raises(Unavailable):
                relay.work()
        assert 2 * outbox_relay.MAX_EVENTS == metrics.EVENTS_WAITING._value.get()
        query(own_database_url, "UPDATE events SET created_at = created_at - interval '8 days'")
        retention_job.work()
        assert 3 == len(published(valkey))
        [(remaining,)] = query(
            own_database_url, "SELECT count(*) FROM events WHERE number IS NOT NULL"
        )
        assert remaining == 2 * outbox_relay.MAX_EVENTS  # the three published ones are deleted
        with pytest.raises(Unavailable):
            relay.work()
        assert [] == published(valkey)  # expired events make room in a full Redis
        client.config_set("maxmemory", 0)
    relay.work()
    judge(own_database_url, published(valkey))


def test_restored_postgres_gives_no_number_twice(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """Readers have seen numbers that are newer than the backup."""
    relay = make(database, valkey)
    write_many(database, 20)
    relay.work()
    seen = numbers(published(valkey))[-1]
    query(own_database_url, "DELETE FROM events WHERE number > 5")
    query(own_database_url, "SELECT setval('event_numbers', 5)")
    write_many(database, 3)
    relay.work()
    assert [seen + 1, seen + 2, seen + 3] == numbers(published(valkey))[-3:]


def test_number_once_given_stays(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """Even if two relays assign numbers concurrently."""
    numbered = "SELECT id, number FROM events ORDER BY number"
    waiting = (
        "SELECT 1 FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    first, second = make(database, valkey), make(database, valkey)
    write_many(database, 3)

    def number_again() -> None:
        with database.transaction() as session:
            second._number_events(session)

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            first._number_events(session)
            given = session.execute(text(numbered)).all()
            concurrent = pool.submit(number_again)
            until(lambda: query(own_database_url, waiting), timeout=10)
        concurrent.result(20)
    assert [tuple(row) for row in given] == query(own_database_url, numbered)


def test_fields_of_an_event(database: Database, valkey: FragileValkey) -> None:
    """The fields that docs/events.md lists, all of them strings."""
    subject = uuid.uuid4()
    with database.transaction() as session:
        record(session, "key.revoked", actor_id=None, user_id=USER_ID, subject_id=subject)
    make(database, valkey).work()
    [(number, event)] = published(valkey)
    assert number.endswith("-0")
    assert {"id", "type", "user_id", "subject_id", "created_at", "data"} == set(event)
    assert ("key.revoked", str(USER_ID), str(subject), "{}") == (
        event["type"],
        event["user_id"],
        event["subject_id"],
        event["data"],
    )
    assert 7 == uuid.UUID(event["id"]).version
    assert event["created_at"].endswith("Z")
