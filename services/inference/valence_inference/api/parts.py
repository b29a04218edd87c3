"""The parts of the application that handlers ask for, and whom they act for."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from valence_common.access import requires
from valence_common.security import Principal
from valence_common.turns import Turns
from valence_common.web import state
from valence_inference.doorbell import Ringer
from valence_inference.history import History
from valence_inference.meter import Meter
from valence_inference.metrics import StreamMetrics
from valence_inference.settings import Settings
from valence_inference.streams import Stream, Streams
from valence_inference.summary import Summaries
from valence_inference.uploads.room import Room
from valence_inference.usage import Usage
from valence_inference.watching import Watching
from valence_ml import Scorer

Analyst = Annotated[Principal, requires("analyze")]
BatchOwner = Annotated[Principal, requires("batch")]
Historian = Annotated[Principal, requires("history")]
ScorerDep = Annotated[Scorer, state("scorer")]
HistoryDep = Annotated[History, state("history")]
RingerDep = Annotated[Ringer, state("ringer")]
MeterDep = Annotated[Meter, state("meter")]
UsageDep = Annotated[Usage, state("usage")]
SummariesDep = Annotated[Summaries, state("summaries")]
TurnsDep = Annotated[Turns, state("downloads")]
RoomDep = Annotated[Room, state("room")]
SettingsDep = Annotated[Settings, state("settings")]
WatchingDep = Annotated[Watching, state("watching")]
StreamMetricsDep = Annotated[StreamMetrics, state("stream_metrics")]
StreamsDep = Annotated[Streams, state("streams")]


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
