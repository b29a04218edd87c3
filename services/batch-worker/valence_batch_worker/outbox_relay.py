"""The outbox relay: publishes events to a Redis Stream, in the order of their commits.

Each event gets a number and goes to the stream under the id `<number>-0`. The relay asks Redis for
the stream's last id each time, so after Redis lost its data the relay publishes all stored events
again, under the same ids (`docs/events.md`). Any number of relays may run: one at a time assigns
numbers, and Redis appends only if the relay knows the stream's current last id.
"""

import json
import time
from typing import Any, Final

import redis
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from valence_batch_worker import metrics
from valence_common.db import Database
from valence_common.postgres import try_lock
from valence_common.problems import Unavailable

STREAM: Final = "valence:events"
MAX_EVENTS: Final = 500
MAX_COUNTED: Final = 10_000
MAX_SECONDS: Final = 1.0
EMPTY_STREAM_ID: Final = "0-0"

# Appends only if the stream's last id is the one that the caller expects: since the caller read it,
# Redis may have lost the stream or another relay may have appended. Returns the last id.
_APPEND: Final = """
local last = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
end
if last ~= ARGV[1] then return last end
for i = 2, #ARGV, 7 do
  last = redis.call('XADD', KEYS[1], ARGV[i], 'id', ARGV[i + 1], 'type', ARGV[i + 2],
    'user_id', ARGV[i + 3], 'subject_id', ARGV[i + 4], 'created_at', ARGV[i + 5],
    'data', ARGV[i + 6])
end
return last
"""

# Postgres may have been restored from a backup older than the last published event.
_ADVANCE_SEQUENCE = text("""
SELECT setval('event_numbers', :last) FROM event_numbers
WHERE :last > CASE WHEN is_called THEN last_value ELSE 0 END
""")

# Ordered by the database's clock: ids come from many clocks, and an end must follow its start. The
# last condition keeps a number once given, should two relays ever assign numbers at a time.
_NUMBER_EVENTS = text("""
UPDATE events SET number = waiting.number
FROM (
    SELECT id, nextval('event_numbers') AS number FROM (
        SELECT id FROM events WHERE number IS NULL ORDER BY created_at, id LIMIT :limit
    ) AS oldest
) AS waiting
WHERE events.id = waiting.id AND events.number IS NULL
""")

_SELECT_NEXT = text("""
SELECT number, id, type, user_id, subject_id, created_at, data FROM events
WHERE number > :last ORDER BY number LIMIT :limit
""")

_SELECT_FIRST = text("SELECT min(number) FROM events")

_COUNT_WAITING = text("""
SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0) FROM (
    (SELECT created_at FROM events WHERE number IS NULL ORDER BY created_at LIMIT :limit)
    UNION ALL
    (SELECT created_at FROM events WHERE number > :last ORDER BY number LIMIT :limit)
) AS waiting
""")


class OutboxRelay:
    """Publishes the waiting events; not thread-safe."""

    def __init__(self, database: Database, client: "redis.Redis"):
        """`client` must have timeouts, no retries, and decode responses."""
        self._database = database
        self._client = client
        self._append_script = client.register_script(_APPEND)
        self._last_id = EMPTY_STREAM_ID

    def last_published(self) -> int:
        """Return the number of the stream's last event as last read from Redis; 0 before that."""
        return int(self._last_id.partition("-")[0])

    def work(self) -> None:
        """Publish for `MAX_SECONDS`; raises `Unavailable` if Redis or Postgres fails."""
        ends = time.monotonic() + MAX_SECONDS
        while self._publish() and time.monotonic() < ends:
            pass

    def _publish(self) -> bool:
        """Publish the next events; return whether more may wait."""
        try:
            self._last_id = self._read_last_id()
            with self._database.transaction() as session:
                self._update_metrics(session)
                if not try_lock(session, "valence.relay"):
                    return False  # another relay is assigning numbers
                events, first_stored = self._number_events(session)
            # The numbers are committed and final. Trim first: a full Redis may then have room.
            self._trim(first_stored)
            last = self._append_events(events)
        except (redis.ConnectionError, redis.TimeoutError, redis.OutOfMemoryError) as error:
            with self._database.transaction() as session:
                self._update_metrics(session)
            raise Unavailable("redis") from error
        return bool(events) or last != self._last_id

    def _read_last_id(self) -> str:
        """Return the stream's last id: `?` matches none, so the script appends nothing."""
        return str(self._append_script(keys=[STREAM], args=["?"]))

    def _number_events(self, session: Session) -> tuple[list[Row[Any]], int]:
        """Number the waiting events; return the next to publish and the first number stored."""
        last = self.last_published()
        session.execute(_ADVANCE_SEQUENCE, {"last": last})
        session.execute(_NUMBER_EVENTS, {"limit": MAX_EVENTS})
        events = session.execute(_SELECT_NEXT, {"last": last, "limit": MAX_EVENTS}).all()
        first: int | None = session.scalar(_SELECT_FIRST)
        return list(events), last + 1 if first is None else first

    def _append_events(self, events: list[Row[Any]]) -> str:
        if not events:
            return self._last_id
        fields = [field for event in events for field in _stream_fields(event)]
        last = str(self._append_script(keys=[STREAM], args=[self._last_id, *fields]))
        if last == f"{events[-1].number}-0":
            metrics.EVENTS_PUBLISHED.inc(len(events))
        return last

    def _trim(self, first_stored: int) -> None:
        """Delete the events from the stream that Postgres no longer stores."""
        self._client.xtrim(STREAM, minid=f"{first_stored}-0", approximate=False)

    def _update_metrics(self, session: Session) -> None:
        last = self.last_published()
        waiting, oldest_seconds = session.execute(
            _COUNT_WAITING, {"last": last, "limit": MAX_COUNTED}
        ).one()
        metrics.EVENTS_WAITING.set(waiting)
        metrics.EVENTS_OLDEST_SECONDS.set(float(oldest_seconds))


def _stream_fields(event: Row[Any]) -> tuple[str, ...]:
    """Return an event's stream id and the values of its fields."""
    return (
        f"{event.number}-0",
        str(event.id),
        event.type,
        str(event.user_id or ""),
        str(event.subject_id or ""),
        event.created_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        json.dumps(event.data),
    )
