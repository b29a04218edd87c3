"""The queue of deliveries under many hands, and when it is long."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from support.batches import make_user
from support.webhooks import make_ended
from valence_batch_worker.webhooks import deliveries
from valence_common.db import Database

URL = "https://example.com/hook"
LEASE = timedelta(seconds=40)


def test_queue_is_walked_along_its_index(session: Session) -> None:
    """However many others wait, and whatever Postgres knows of the table."""
    pending = make_ended(session, URL)
    session.execute(
        text(
            "INSERT INTO webhook_deliveries (id, batch_id, user_id, event, next_at)"
            " SELECT gen_random_uuid(), :batch, :user, 'batch.completed', now()"
            " FROM generate_series(1, 5000)"
        ),
        {"batch": pending.batch_id, "user": pending.user_id},
    )
    plans: list[str] = []

    def explain(_, cursor, statement, parameters, *__) -> None:
        if "webhook_deliveries" in statement:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(line for (line,) in cursor))

    engine = session.connection().engine
    event.listen(engine, "before_cursor_execute", explain)
    assert deliveries.claim(session, lease=LEASE) is not None
    deliveries.measure_due(session)
    event.remove(engine, "before_cursor_execute", explain)
    walked, due = plans
    assert "ix_webhook_deliveries_queue" in walked
    assert "ix_webhook_deliveries_due" in due
    for plan in plans:
        assert "Seq Scan on webhook_deliveries" not in plan
        assert "Sort" not in plan


def test_claims_at_once_take_different_deliveries(database: Database) -> None:
    """Eight workers claim all there are: each once."""
    with database.transaction() as session:
        users = [make_user(session) for _ in range(4)]
        made = {make_ended(session, URL, user_id=users[n % 4]).id for n in range(40)}
    start = threading.Barrier(8)

    def work(_: int) -> list[uuid.UUID]:
        start.wait()
        taken = []
        while True:
            with database.transaction() as session:
                mine = deliveries.claim(session, lease=LEASE)
            if mine is None:
                return taken
            taken.append(mine.id)

    with ThreadPoolExecutor(8) as pool:
        taken = [each for part in pool.map(work, range(8)) for each in part]
    assert sorted(made) == sorted(taken)
