"""The courier: many deliveries at once, each once, and nobody held up by a receiver that hangs."""

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

Hire = Callable[..., Dispatcher]


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
def hire(own_database_url: str, receiver: Receiver) -> Iterator[Hire]:
    """Starts couriers, each as a worker of its own has one."""
    hired: list[tuple[Dispatcher, Database]] = []

    def hire(**more: Any) -> Dispatcher:
        settings = Settings(
            database_url=SecretStr(own_database_url),
            redis_url=SecretStr("redis://127.0.0.1:1/0"),
            sweep_seconds=0.2,
            webhooks_allow_http=True,
            webhooks_allowed_networks="127.0.0.0/8",
            **{"webhook_timeout_seconds": 60, **more},
        )
        database = Database(SecretStr(own_database_url), pool_size=1, timeout=20, pooled=False)
        courier = Dispatcher(settings, database)
        courier.start()
        hired.append((courier, database))
        return courier

    yield hire
    receiver.release.set()
    for courier, database in hired:
        courier.stop()
        courier.join(60)
        assert not courier.is_alive()
        database.close()


def ended(database: Database, *urls: str, same_user: bool = False) -> list[str]:
    """Batches that ended, each of a user of its own unless told otherwise; the deliveries' ids."""
    with database.transaction() as session:
        user_id = None
        if same_user:
            user_id = make_user(session)
            session.add(WebhookSecret(user_id=user_id, secret=SECRET))
        return [str(make_ended(session, url, user_id=user_id).id) for url in urls]


def statuses(url: str) -> Counter[str]:
    return Counter(dict(query(url, "SELECT id, status FROM webhook_deliveries")).values())


def test_two_couriers_deliver_each_once(
    hire: Hire, database: Database, own_database_url: str, receiver: Receiver
) -> None:
    """Nothing fails: nobody hears anything twice."""
    made = ended(database, *[receiver.url()] * 30) + ended(
        database, *[receiver.url()] * 10, same_user=True
    )
    for _ in range(2):
        hire()
    until(lambda: statuses(own_database_url) == {"delivered": 40}, timeout=60)
    assert sorted(made) == sorted(r.headers["webhook-id"] for r in receiver.requests)
    assert all(signed_with(SECRET, request) for request in receiver.requests)
    rows = query(own_database_url, "SELECT attempts, finished_at IS NULL FROM webhook_deliveries")
    assert {(1, False)} == set(rows)


def test_a_hanging_receiver_holds_up_its_user_at_most(
    hire: Hire, database: Database, own_database_url: str, receiver: Receiver
) -> None:
    """All of one user's turns are taken by a receiver that hangs; the others' come at once."""
    ended(database, *[receiver.url("/hang")] * (module.MAX_CONCURRENT + 4), same_user=True)
    hire()
    until(lambda: len(receiver.got("/hang")) == module.MAX_PER_USER, timeout=60)
    ended(database, *[receiver.url()] * 10)
    until(lambda: len(receiver.got()) == 10, timeout=60)
    until(lambda: statuses(own_database_url)["delivered"] == 10, timeout=60)
    assert module.MAX_PER_USER == len(receiver.got("/hang"))


def test_tried_again_until_it_arrives(
    hire: Hire, database: Database, own_database_url: str, receiver: Receiver
) -> None:
    """A receiver that fails twice is told a third time, the same message under the same id."""
    ended(database, receiver.url("/fail-twice"))
    hire()

    def soon() -> bool:
        query(own_database_url, "UPDATE webhook_deliveries SET next_at = now() WHERE attempts < 3")
        return statuses(own_database_url) == {"delivered": 1}

    # Cut short while an attempt is under way, it would be tried once more: hence "at least".
    until(soon, timeout=60, interval=1)
    requests = receiver.got("/fail-twice")
    assert len(requests) >= 3
    assert 1 == len({(r.headers["webhook-id"], r.body) for r in requests})


def test_stopping_lets_what_is_under_way_arrive(
    hire: Hire, database: Database, own_database_url: str, receiver: Receiver
) -> None:
    """It begins nothing more, and is over when the last answer has come."""
    ended(database, receiver.url("/hang"))
    courier = hire()
    until(lambda: receiver.got("/hang"), timeout=60)
    courier.stop()
    ended(database, receiver.url())
    courier.join(0.5)
    assert courier.is_alive()
    receiver.release.set()
    courier.join(60)
    assert not courier.is_alive()
    assert {"delivered": 1, "pending": 1} == statuses(own_database_url)
    assert [] == receiver.got()


def test_an_account_erased_meanwhile_is_told_of_no_more(
    hire: Hire, database: Database, own_database_url: str, receiver: Receiver
) -> None:
    """What was due before it was erased stays unsent; others' is sent."""
    [gone] = ended(database, receiver.url("/gone"))
    with database.transaction() as session:
        mark = "UPDATE users SET erased_at = now() WHERE id = (SELECT user_id FROM"
        session.execute(text(f"{mark} webhook_deliveries WHERE id = :id)"), {"id": gone})
    hire()
    ended(database, receiver.url())
    until(lambda: statuses(own_database_url)["delivered"] == 1, timeout=60)
    assert [] == receiver.got("/gone")


def test_its_pulse_beats_while_receivers_hang(
    hire: Hire, database: Database, receiver: Receiver
) -> None:
    """A worker is restarted when its courier does not come round, and not for its receivers."""
    courier = hire()
    ended(database, *[receiver.url("/hang")] * 3)
    until(lambda: len(receiver.got("/hang")) == 3, timeout=60)
    before = courier.heartbeat.last_beat()
    until(lambda: courier.heartbeat.last_beat() > before, timeout=20, what="another beat")
