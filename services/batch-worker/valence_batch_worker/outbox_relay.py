"""The relay: events of the outbox are numbered in the order of their commits and told in it.

They go to a Redis Stream under `<number>-0`. Where the stream stands is asked of Redis each time,
so one that has forgotten everything is told everything again that is kept, under the same ids
(`docs/events.md`). Safe at any number of relays: one numbers at a time, and Redis takes events only
from who knows where its stream stands in that moment.
"""

import json
import time
from typing import Any, Final

import redis
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from valence_batch_worker import metrics
from valence_common.db import Database
from valence_common.problems import Unavailable

STREAM: Final = "valence:events"
MAX_EVENTS: Final = 500
MAX_COUNTED: Final = 10_000
MAX_SECONDS: Final = 1.0
EMPTY_STREAM_ID: Final = "0-0"

# Appends only if the stream still stands where the caller believes: between asking and telling, it
# may have been emptied or told by another. Returns where it stands now.
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

_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('valence.relay'))")

# Postgres may have been restored from a backup that is older than what was told since.
_ADVANCE_SEQUENCE = text("""
SELECT setval('event_numbers', :last) FROM event_numbers
WHERE :last > CASE WHEN is_called THEN last_value ELSE 0 END
""")

# Times are the database's, ids are made by many clocks: a batch's end must not come before it.
_NUMBER_EVENTS = text("""
UPDATE events SET number = waiting.number
FROM (
    SELECT id, nextval('event_numbers') AS number FROM (
        SELECT id FROM events WHERE number IS NULL ORDER BY created_at, id LIMIT :limit
    ) AS oldest
) AS waiting
WHERE events.id = waiting.id
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
    """Tells what waits, again and again; for one thread."""

    def __init__(self, database: Database, client: "redis.Redis"):
        """`client` has timeouts, does not retry and sees strings."""
        self._database = database
        self._client = client
        self._append_script = client.register_script(_APPEND)
        self._last_id = EMPTY_STREAM_ID

    def last_published(self) -> int:
        """The number of the last event in the stream when it was last seen; 0 before that."""
        return int(self._last_id.partition("-")[0])

    def work(self) -> None:
        """Tell for a while; raises `Unavailable` when Redis or Postgres cannot do its part."""
        ends = time.monotonic() + MAX_SECONDS
        while self._publish() and time.monotonic() < ends:
            pass

    def _publish(self) -> bool:
        """Tell the next events; whether there may be more."""
        try:
            self._last_id = self._read_last_id()
            with self._database.transaction() as session:
                self._update_metrics(session)
                if not session.scalar(_LOCK):
                    return False  # another is at it
                events, kept = self._number_events(session)
            # Their numbers are committed: whatever happens now, they have no others. A Redis that
            # is full has room for them when what is too old has gone.
            self._trim(kept)
            last = self._append_events(events)
        except (redis.ConnectionError, redis.TimeoutError, redis.OutOfMemoryError) as error:
            with self._database.transaction() as session:
                self._update_metrics(session)
            raise Unavailable("redis") from error
        return bool(events) or last != self._last_id

    def _read_last_id(self) -> str:
        return str(self._append_script(keys=[STREAM], args=["?"]))

    def _number_events(self, session: Session) -> tuple[list[Row[Any]], int]:
        """Number what waits; returns what the stream lacks, and the first number that is kept."""
        last = self.last_published()
        session.execute(_ADVANCE_SEQUENCE, {"last": last})
        session.execute(_NUMBER_EVENTS, {"limit": MAX_EVENTS})
        events = session.execute(_SELECT_NEXT, {"last": last, "limit": MAX_EVENTS}).all()
        kept: int | None = session.scalar(_SELECT_FIRST)
        return list(events), last + 1 if kept is None else kept

    def _append_events(self, events: list[Row[Any]]) -> str:
        if not events:
            return self._last_id
        fields = [field for event in events for field in _stream_fields(event)]
        last = str(self._append_script(keys=[STREAM], args=[self._last_id, *fields]))
        if last == f"{events[-1].number}-0":
            metrics.EVENTS_PUBLISHED.inc(len(events))
        return last

    def _trim(self, first_stored: int) -> None:
        """The stream holds what Postgres holds."""
        self._client.xtrim(STREAM, minid=f"{first_stored}-0", approximate=False)

    def _update_metrics(self, session: Session) -> None:
        last = self.last_published()
        found = session.execute(_COUNT_WAITING, {"last": last, "limit": MAX_COUNTED}).one()
        metrics.EVENTS_WAITING.set(found[0])
        metrics.EVENTS_OLDEST_SECONDS.set(float(found[1]))


def _stream_fields(event: Row[Any]) -> tuple[str, ...]:
    """An event as the stream has it: its place, then the values of its fields."""
    return (
        f"{event.number}-0",
        str(event.id),
        event.type,
        str(event.user_id or ""),
        str(event.subject_id or ""),
        event.created_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        json.dumps(event.data),
    )
