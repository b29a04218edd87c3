"""The dispatcher: concurrent deliveries, each once, and no delay by a receiver that hangs."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from support.batches import make_user
from support.receiver import Receiver, signed_with
from support.rows import query
from support.waiting import until
from support.webhooks import SECRET, make_ended
from valence_batch_worker.settings import Settings
from valence_batch_worker.webhooks import dispatcher as module
from valence_batch_worker.webhooks.dispatcher import Dispatcher
from valence_common.db import Database
from valence_common.models import WebhookSecret

StartDispatcher = Callable[..., Dispatcher]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def database(own_database_url: str) -> Iterator[Database]:
    database = Database(SecretStr(own_database_url), pool_size=1, timeout=20, pooled=False)
    yield database
    database.close()


@pytest.fixture
def start(own_database_url: str, receiver: Receiver) -> Iterator[StartDispatcher]:
    """Start dispatchers, each with the database of a separate worker."""
    started: list[tuple[Dispatcher, Database]] = []

    def start(**more: Any) -> Dispatcher:
        settings = Settings(
            database_url=SecretStr(own_database_url),
            redis_url=SecretStr("redis://127.0.0.1:1/0"),
            sweep_seconds=0.2,
            webhooks_allow_http=True,
            webhooks_allowed_networks="127.0.0.0/8",
            **{"webhook_timeout_seconds": 60, **more},
        )
        database = Database(SecretStr(own_database_url), pool_size=1, timeout=20, pooled=False)
        dispatcher = Dispatcher(settings, database)
        dispatcher.start()
        started.append((dispatcher, database))
        return dispatcher

    yield start
    receiver.release.set()
    for dispatcher, database in started:
        dispatcher.stop()
        dispatcher.join(60)
        assert not dispatcher.is_alive()
        database.close()


def ended(database: Database, *urls: str, same_user: bool = False) -> list[str]:
    """End batches, of different users unless `same_user`; return the deliveries' ids."""
    with database.transaction() as session:
        user_id = None
        if same_user:
            user_id = make_user(session)
            session.add(WebhookSecret(user_id=user_id, secret=SECRET))
        return [str(make_ended(session, url, user_id=user_id).id) for url in urls]


def statuses(url: str) -> Counter[str]:
    return Counter(dict(query(url, "SELECT id, status FROM webhook_deliveries")).values())


def test_two_dispatchers_send_each_delivery_once(
    start: StartDispatcher, database: Database, own_database_url: str, receiver: Receiver
) -> None:
    """Without failures no message arrives twice."""
    made = ended(database, *[receiver.url()] * 30) + ended(
        database, *[receiver.url()] * 10, same_user=True
    )
    for _ in range(2):
        start()
    until(lambda: statuses(own_database_url) == {"delivered": 40}, timeout=60)
    assert sorted(made) == sorted(r.headers["webhook-id"] for r in receiver.requests)
    assert all(signed_with(SECRET, request) for request in receiver.requests)
    rows = query(own_database_url, "SELECT attempts, finished_at IS NULL FROM webhook_deliveries")
    assert {(1, False)} == set(rows)


def test_hanging_receiver_delays_only_its_user(
    start: StartDispatcher, database: Database, own_database_url: str, receiver: Receiver
) -> None:
    """A receiver that hangs takes all slots of its user; other users' messages arrive."""
    ended(database, *[receiver.url("/hang")] * (module.MAX_CONCURRENT + 4), same_user=True)
    start()
    until(lambda: len(receiver.got("/hang")) == module.MAX_PER_USER, timeout=60)
    ended(database, *[receiver.url()] * 10)
    until(lambda: len(receiver.got()) == 10, timeout=60)
    until(lambda: statuses(own_database_url)["delivered"] == 10, timeout=60)
    assert module.MAX_PER_USER == len(receiver.got("/hang"))


def test_delivery_is_retried_until_it_arrives(
    start: StartDispatcher, database: Database, own_database_url: str, receiver: Receiver
) -> None:
    """A receiver that fails twice gets the same message a third time, under the same id."""
    ended(database, receiver.url("/fail-twice"))
    start()

    def soon() -> bool:
        query(own_database_url, "UPDATE webhook_deliveries SET next_at = now() WHERE attempts < 3")
        return statuses(own_database_url) == {"delivered": 1}

    # Moving `next_at` during an attempt causes one more, hence "at least".
    until(soon, timeout=60, interval=1)
    requests = receiver.got("/fail-twice")
    assert len(requests) >= 3
    assert 1 == len({(r.headers["webhook-id"], r.body) for r in requests})


def test_stop_waits_for_deliveries_in_flight(
    start: StartDispatcher, database: Database, own_database_url: str, receiver: Receiver
) -> None:
    """It starts no more deliveries and ends after the last response."""
    ended(database, receiver.url("/hang"))
    dispatcher = start()
    until(lambda: receiver.got("/hang"), timeout=60)
    dispatcher.stop()
    ended(database, receiver.url())
    dispatcher.join(0.5)
    assert dispatcher.is_alive()
    receiver.release.set()
    dispatcher.join(60)
    assert not dispatcher.is_alive()
    assert {"delivered": 1, "pending": 1} == statuses(own_database_url)
    assert [] == receiver.got()


def test_erased_account_gets_no_more_webhooks(
    start: StartDispatcher, database: Database, own_database_url: str, receiver: Receiver
) -> None:
    """Its due deliveries stay unsent; those of other users are sent."""
    [erased] = ended(database, receiver.url("/gone"))
    with database.transaction() as session:
        mark = "UPDATE users SET erased_at = now() WHERE id = (SELECT user_id FROM"
        session.execute(text(f"{mark} webhook_deliveries WHERE id = :id)"), {"id": erased})
    start()
    ended(database, receiver.url())
    until(lambda: statuses(own_database_url)["delivered"] == 1, timeout=60)
    assert [] == receiver.got("/gone")


def test_heartbeat_beats_while_receivers_hang(
    start: StartDispatcher, database: Database, receiver: Receiver
) -> None:
    """A stuck dispatcher restarts its worker; a hanging receiver does not."""
    dispatcher = start()
    ended(database, *[receiver.url("/hang")] * 3)
    until(lambda: len(receiver.got("/hang")) == 3, timeout=60)
    before = dispatcher.heartbeat.last_beat()
    until(lambda: dispatcher.heartbeat.last_beat() > before, timeout=20, what="another beat")
