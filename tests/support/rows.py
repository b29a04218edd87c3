"""What the database holds, read without any service, and what must hold of each batch."""

import functools
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine, text

from valence_common.db import make_engine


def query(url: str, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Run one statement in a transaction of its own; returns its rows."""
    with _engine(url).begin() as connection:
        result = connection.execute(text(statement), parameters)
        return [tuple(row) for row in result] if result.returns_rows else []


def execute(url: str, statement: str) -> None:
    """Run a statement that takes no transaction around it."""
    with _engine(url).connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(statement)


def disconnect(url: str) -> None:
    """Close what `query` and `execute` keep open: only then can the database be copied."""
    _engine(url).dispose()


@functools.cache
def _engine(url: str) -> Engine:
    # A login costs both sides 5 ms. A connection that has died meanwhile, with its database or its
    # server, is noticed.
    return make_engine(SecretStr(url), pool_size=1, max_overflow=-1, pool_pre_ping=True)


def done(url: str, task_id: str) -> int:
    """How many results of a batch are stored."""
    [(count,)] = query(url, "SELECT count(*) FROM batch_results WHERE batch_id = :id", id=task_id)
    return count


def judge_batch(
    url: str, task_id: str, texts: Sequence[str], failed: Sequence[int] = (), status: str = ""
) -> None:
    """What went in came out, exactly once: results, history, and one end. Texts must differ.

    The history is compared as a whole: the batch must be all that its user had scored.
    """
    results = query(
        url,
        "SELECT position, error IS NOT NULL FROM batch_results WHERE batch_id = :id"
        " ORDER BY position",
        id=task_id,
    )
    assert [(n, n in failed) for n in range(len(texts))] == results
    expected = status or ("completed_with_errors" if failed else "completed")
    events = query(
        url,
        "SELECT action FROM audit_events WHERE subject_id = :id AND action <> 'batch.accepted'",
        id=task_id,
    )
    assert [(f"batch.{expected}",)] == events
    assert [(expected,)] == query(url, "SELECT status FROM batches WHERE id = :id", id=task_id)
    history = query(
        url,
        "SELECT text FROM predictions WHERE user_id = (SELECT user_id FROM batches WHERE id = :id)",
        id=task_id,
    )
    scored = (text for n, text in enumerate(texts) if n not in failed)
    assert sorted(scored) == sorted(text for (text,) in history)
