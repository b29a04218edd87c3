"""The relay with a real Postgres and Valkey: every event once, in order, whatever is lost when."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
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

SOMEBODY = uuid.uuid4()


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FragileValkey]:
    with FragileValkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest.fixture(autouse=True)
def _empty(valkey: FragileValkey) -> None:
    valkey.flush()


def write(session: Session, n: int = 0, writer: int = 0) -> None:
    """An event of a transaction."""
    details = {"n": n, "writer": writer}
    action = "batch.accepted"
    record(session, action, actor_id=None, user_id=SOMEBODY, subject_id=SOMEBODY, details=details)


def test_what_commits_last_is_told_last(database: Database, valkey: FragileValkey) -> None:
    """Of two transactions the first begun ends last: a reader in between misses nothing."""
    mine = make(database, valkey)
    with database.transaction() as first:
        write(first, 1)
        with database.transaction() as second:
            write(second, 2)
        mine.work()
        assert ['{"n": 2, "writer": 0}'] == [event["data"] for _, event in published(valkey)]
    mine.work()
    assert ['{"n": 2, "writer": 0}', '{"n": 1, "writer": 0}'] == [
        event["data"] for _, event in published(valkey)
    ]
    judge_order(published(valkey))


def test_many_writers_and_two_relays(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """Transactions of all lengths side by side: each event once, each writer's in its order."""

    def writer(number: int) -> None:
        for n in range(40):
            with database.transaction() as session:
                write(session, n, number)
                if random.random() < 0.3:
                    time.sleep(random.random() / 50)  # so that others overtake

    writers = [threading.Thread(target=writer, args=(n,)) for n in range(5)]
    with Reader(valkey.url()) as reader, relaying(database, valkey, 2):
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
        until(lambda: len(reader.handled) >= 200, timeout=60, what="all was heard")
    judge(own_database_url, reader.handled)
    judge(own_database_url, published(valkey))
    for number in range(5):
        mine = [e["data"] for _, e in reader.handled if f'"writer": {number}}}' in e["data"]]
        assert [f'{{"n": {n}, "writer": {number}}}' for n in range(40)] == mine


def test_four_relays_and_a_backlog(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """More than one round trip holds, and everybody at it."""
    write_many(database, 5 * outbox_relay.MAX_EVENTS + 7)
    with relaying(database, valkey, 4):
        until(lambda: len(published(valkey)) >= 5 * outbox_relay.MAX_EVENTS + 7, timeout=60)
    judge(own_database_url, published(valkey))


BLOWS: dict[str, Callable[[FragileValkey], Any]] = {
    "FLUSHALL": FragileValkey.flush,
    "kill -9": lambda valkey: (valkey.kill(), valkey.start()),
}


@pytest.mark.parametrize("group", ["", "a group"])
@pytest.mark.parametrize("blow", BLOWS)
def test_a_reader_reads_through(
    database: Database, own_database_url: str, valkey: FragileValkey, blow: str, group: str
) -> None:
    """Redis forgets all, several times, while events come: each is handled once, in order."""
    with Reader(valkey.url(), group=group) as reader, relaying(database, valkey, 2):
        for blows in range(1, 4):
            write_many(database, 300)
            until(lambda n=blows: len(reader.handled) > 300 * n - 150, timeout=60, interval=0.001)
            BLOWS[blow](valkey)
        write_many(database, 300)
        until(lambda: len(reader.handled) >= 1200, timeout=60, what="all was heard")
    judge(own_database_url, reader.handled)


@pytest.mark.parametrize("group", ["", "a group"])
def test_a_reader_falls_behind_and_another_goes_on(
    database: Database, own_database_url: str, valkey: FragileValkey, group: str
) -> None:
    """It dies with events in hand; who comes after it misses none, and the stream went on."""
    handled: Published = []
    with relaying(database, valkey):
        for round_ in range(1, 4):
            with Reader(valkey.url(), group=group, handled=handled):
                write_many(database, 400)
                until(lambda n=round_: len(handled) >= 100 * n, timeout=60, interval=0.001)
            write_many(database, 400)
        with Reader(valkey.url(), group=group, handled=handled):
            until(lambda: len(handled) >= 2400, timeout=60, what="all was heard")
    judge(own_database_url, handled)


def test_redis_forgets_between_asking_and_telling(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """What comes after a gap is not taken: the stream begins again with the first that is kept."""

    class Struck(OutboxRelay):
        struck = False

        def _append_events(self, events: list[Any]) -> str:
            if not self.struck:
                self.struck = True
                valkey.flush()
            return super()._append_events(events)

    write_many(database, 3)
    make(database, valkey).work()
    write_many(database, 2)
    struck = make(database, valkey, Struck)
    struck.work()
    assert struck.struck
    judge(own_database_url, published(valkey))


@pytest.mark.parametrize("told_before", [False, True])
def test_a_relay_dies_around_telling(
    database: Database, own_database_url: str, valkey: FragileValkey, told_before: bool
) -> None:
    """Before it told what it had numbered, or just after: the next one tells the rest, once."""

    class Mortal(OutboxRelay):
        def _append_events(self, events: list[Any]) -> str:
            if told_before:
                super()._append_events(events)
            raise SystemExit

    write_many(database, 3)
    with pytest.raises(SystemExit):
        make(database, valkey, Mortal).work()
    given = query(own_database_url, "SELECT number FROM events ORDER BY number")
    write_many(database, 2)
    make(database, valkey).work()
    judge(own_database_url, published(valkey))
    assert [number for (number,) in given] == numbers(published(valkey))[:3]


def test_redis_away_or_silent(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """One try, then the loop waits; how much waits is measured all the same."""
    mine = make(database, valkey)
    write_many(database, 3)
    mine.work()
    write_many(database, 5)
    for blow in (valkey.down(), valkey.frozen()):
        with blow, pytest.raises(Unavailable):
            mine.work()
        assert 5 == metrics.EVENTS_WAITING._value.get()
        assert 0 < metrics.EVENTS_OLDEST_SECONDS._value.get()
    before = metrics.EVENTS_PUBLISHED._value.get()
    mine.work()
    judge(own_database_url, published(valkey))
    assert before + 8 == metrics.EVENTS_PUBLISHED._value.get()  # `down` lost the first three
    assert 0 == metrics.EVENTS_WAITING._value.get() == metrics.EVENTS_OLDEST_SECONDS._value.get()


def test_retention_trims_the_stream(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """What is deleted here goes there, and numbers go on; at last the stream is empty."""
    settings = Settings(database_url=SecretStr(own_database_url), redis_url=SecretStr(valkey.url()))
    mine = make(database, valkey)
    piece = retention.delete_steps(settings, mine.last_published)["events"]

    def age(condition: str) -> None:
        query(
            own_database_url,
            f"UPDATE events SET created_at = created_at - interval '8 days' WHERE {condition}",
        )
        with database.transaction() as session:
            piece(session, 100)
        mine.work()

    write_many(database, 10)
    mine.work()
    last = numbers(published(valkey))[-1]
    age(f"number <= {last - 4}")
    assert [last - 3, last - 2, last - 1, last] == numbers(published(valkey))
    age("true")
    assert [] == published(valkey)
    write_many(database, 1)
    mine.work()
    assert [last + 1] == numbers(published(valkey))


def test_a_full_redis_is_told_later(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """However long it is full: what has a number and is too old, but was not told, is kept."""
    settings = Settings(database_url=SecretStr(own_database_url), redis_url=SecretStr(valkey.url()))
    mine = make(database, valkey)
    keeper = Retention(settings, database, mine.last_published)
    write_many(database, 3)
    mine.work()
    with valkey.client() as client:
        client.config_set("maxmemory", 1)
        write_many(database, 2 * outbox_relay.MAX_EVENTS)
        for _ in range(3):
            with pytest.raises(Unavailable):
                mine.work()
        assert 2 * outbox_relay.MAX_EVENTS == metrics.EVENTS_WAITING._value.get()
        query(own_database_url, "UPDATE events SET created_at = created_at - interval '8 days'")
        keeper.work()
        assert 3 == len(published(valkey))
        [(left,)] = query(own_database_url, "SELECT count(*) FROM events WHERE number IS NOT NULL")
        assert left == 2 * outbox_relay.MAX_EVENTS  # the three that were told have gone
        with pytest.raises(Unavailable):
            mine.work()
        assert [] == published(valkey)  # what is too old makes room while it is full, too
        client.config_set("maxmemory", 0)
    mine.work()
    judge(own_database_url, published(valkey))


def test_postgres_was_restored_from_a_backup(
    database: Database, own_database_url: str, valkey: FragileValkey
) -> None:
    """Numbers that readers have seen are not given again."""
    mine = make(database, valkey)
    write_many(database, 20)
    mine.work()
    seen = numbers(published(valkey))[-1]
    query(own_database_url, "DELETE FROM events WHERE number > 5")
    query(own_database_url, "SELECT setval('event_numbers', 5)")
    write_many(database, 3)
    mine.work()
    assert [seen + 1, seen + 2, seen + 3] == numbers(published(valkey))[-3:]


def test_what_an_event_holds(database: Database, valkey: FragileValkey) -> None:
    """The page's fields, all of them strings."""
    subject = uuid.uuid4()
    with database.transaction() as session:
        record(session, "key.revoked", actor_id=None, user_id=SOMEBODY, subject_id=subject)
    make(database, valkey).work()
    [(number, event)] = published(valkey)
    assert number.endswith("-0")
    assert {"id", "type", "user_id", "subject_id", "created_at", "data"} == set(event)
    assert ("key.revoked", str(SOMEBODY), str(subject), "{}") == (
        event["type"],
        event["user_id"],
        event["subject_id"],
        event["data"],
    )
    assert 7 == uuid.UUID(event["id"]).version
    assert event["created_at"].endswith("Z")
