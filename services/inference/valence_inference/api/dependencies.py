"""The parts of the application that handlers ask for, and whom they act for."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from valence_common.concurrency import ConcurrencyLimit
from valence_common.security import Principal
from valence_common.web.access import requires
from valence_common.web.state import provide
from valence_inference.batches.notify import Ringer
from valence_inference.batches.summary import Summaries
from valence_inference.history import History
from valence_inference.live.connections import Stream, Streams
from valence_inference.live.metrics import StreamMetrics
from valence_inference.live.progress import Watching
from valence_inference.metering.limits import Meter
from valence_inference.metering.usage import Usage
from valence_inference.resources import InferenceResources
from valence_inference.settings import Settings
from valence_inference.uploads.memory import Room
from valence_ml import Scorer


def _provide(get: Callable[[InferenceResources], object]) -> Any:
    return provide(InferenceResources, get)


Analyst = Annotated[Principal, requires("analyze")]
BatchOwner = Annotated[Principal, requires("batch")]
Historian = Annotated[Principal, requires("history")]
ScorerDep = Annotated[Scorer, _provide(lambda resources: resources.scorer)]
HistoryDep = Annotated[History, _provide(lambda resources: resources.history)]
RingerDep = Annotated[Ringer, _provide(lambda resources: resources.ringer)]
MeterDep = Annotated[Meter, _provide(lambda resources: resources.meter)]
UsageDep = Annotated[Usage, _provide(lambda resources: resources.usage)]
SummariesDep = Annotated[Summaries, _provide(lambda resources: resources.summaries)]
TurnsDep = Annotated[ConcurrencyLimit, _provide(lambda resources: resources.downloads)]
RoomDep = Annotated[Room, _provide(lambda resources: resources.room)]
SettingsDep = Annotated[Settings, _provide(lambda resources: resources.settings)]
WatchingDep = Annotated[Watching, _provide(lambda resources: resources.watching)]
StreamMetricsDep = Annotated[StreamMetrics, _provide(lambda resources: resources.stream_metrics)]
StreamsDep = Annotated[Streams, _provide(lambda resources: resources.streams)]


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
