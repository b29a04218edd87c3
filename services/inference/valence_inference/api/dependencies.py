"""The parts of the application that handlers ask for, and whom they act for."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from valence_common.concurrency import ConcurrencyLimit
from valence_common.security import Principal
from valence_common.web.access import requires
from valence_common.web.app import from_state
from valence_inference.batches.notify import Ringer
from valence_inference.batches.summary import Summaries
from valence_inference.history import History
from valence_inference.live.connections import Stream, Streams
from valence_inference.live.metrics import StreamMetrics
from valence_inference.live.progress import Watching
from valence_inference.metering.limits import Meter
from valence_inference.metering.usage import Usage
from valence_inference.settings import Settings
from valence_inference.uploads.memory import Room
from valence_ml import Scorer

Analyst = Annotated[Principal, requires("analyze")]
BatchOwner = Annotated[Principal, requires("batch")]
Historian = Annotated[Principal, requires("history")]
ScorerDep = Annotated[Scorer, from_state("scorer")]
HistoryDep = Annotated[History, from_state("history")]
RingerDep = Annotated[Ringer, from_state("ringer")]
MeterDep = Annotated[Meter, from_state("meter")]
UsageDep = Annotated[Usage, from_state("usage")]
SummariesDep = Annotated[Summaries, from_state("summaries")]
TurnsDep = Annotated[ConcurrencyLimit, from_state("downloads")]
RoomDep = Annotated[Room, from_state("room")]
SettingsDep = Annotated[Settings, from_state("settings")]
WatchingDep = Annotated[Watching, from_state("watching")]
StreamMetricsDep = Annotated[StreamMetrics, from_state("stream_metrics")]
StreamsDep = Annotated[Streams, from_state("streams")]


async def _watcher(
    connection: HTTPConnection, principal: BatchOwner, streams: StreamsDep
) -> AsyncIterator[Stream]:
    with streams.open(connection, principal) as stream:
        yield stream


async def _talker(
    connection: HTTPConnection, principal: Analyst, streams: StreamsDep
) -> AsyncIterator[Stream]:
    with streams.open(connection, principal) as stream:
        yield stream


# Open until the answer has been sent to its end.
WatcherStream = Annotated[Stream, Depends(_watcher)]
TalkerStream = Annotated[Stream, Depends(_talker)]
