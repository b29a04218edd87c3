"""The parts of the application that handlers ask for, and whom they act for."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from valence_common.concurrency import ConcurrencyLimit
from valence_common.security import Principal
from valence_common.web.access import requires
from valence_common.web.state import provide
from valence_inference.batches.notify import AsyncDoorbell
from valence_inference.batches.summary import Summaries
from valence_inference.history import History
from valence_inference.live.connections import Connection, ConnectionRegistry
from valence_inference.live.metrics import ConnectionMetrics
from valence_inference.live.progress import ProgressFeed
from valence_inference.metering.limits import RequestLimiter
from valence_inference.metering.usage import Usage
from valence_inference.resources import InferenceResources
from valence_inference.settings import Settings
from valence_inference.uploads.memory import UploadMemory
from valence_ml import Scorer


def _provide(get: Callable[[InferenceResources], object]) -> Any:
    return provide(InferenceResources, get)


Analyst = Annotated[Principal, requires("analyze")]
BatchOwner = Annotated[Principal, requires("batch")]
Historian = Annotated[Principal, requires("history")]
ScorerDep = Annotated[Scorer, _provide(lambda resources: resources.scorer)]
HistoryDep = Annotated[History, _provide(lambda resources: resources.history)]
DoorbellDep = Annotated[AsyncDoorbell, _provide(lambda resources: resources.doorbell)]
RequestLimiterDep = Annotated[RequestLimiter, _provide(lambda resources: resources.meter)]
UsageDep = Annotated[Usage, _provide(lambda resources: resources.usage)]
SummariesDep = Annotated[Summaries, _provide(lambda resources: resources.summaries)]
DownloadLimitDep = Annotated[ConcurrencyLimit, _provide(lambda resources: resources.downloads)]
UploadMemoryDep = Annotated[UploadMemory, _provide(lambda resources: resources.upload_memory)]
SettingsDep = Annotated[Settings, _provide(lambda resources: resources.settings)]
ProgressFeedDep = Annotated[ProgressFeed, _provide(lambda resources: resources.progress_feed)]
ConnectionMetricsDep = Annotated[
    ConnectionMetrics, _provide(lambda resources: resources.connection_metrics)
]
ConnectionsDep = Annotated[ConnectionRegistry, _provide(lambda resources: resources.connections)]


async def _watcher(
    connection: HTTPConnection, principal: BatchOwner, streams: ConnectionsDep
) -> AsyncIterator[Connection]:
    with streams.open(connection, principal) as stream:
        yield stream


async def _talker(
    connection: HTTPConnection, principal: Analyst, streams: ConnectionsDep
) -> AsyncIterator[Connection]:
    with streams.open(connection, principal) as stream:
        yield stream


# Open until the answer has been sent to its end.
ProgressConnection = Annotated[Connection, Depends(_watcher)]
AnalyzeConnection = Annotated[Connection, Depends(_talker)]
