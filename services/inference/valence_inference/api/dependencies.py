"""The dependencies of route handlers: principals, resources and registered connections."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from valence_common.concurrency import ConcurrencyLimit
from valence_common.security import Principal
from valence_common.web.access import requires
from valence_common.web.state import provide
from valence_inference.batches.summary import Summaries
from valence_inference.history import History
from valence_inference.live.connections import Connection, ConnectionRegistry
from valence_inference.live.progress import ProgressFeed
from valence_inference.metering.usage import Usage
from valence_inference.resources import InferenceResources
from valence_inference.settings import Settings
from valence_ml import Scorer


def _provide(get: Callable[[InferenceResources], object]) -> Any:
    return provide(InferenceResources, get)


Analyst = Annotated[Principal, requires("analyze")]
BatchOwner = Annotated[Principal, requires("batch")]
Historian = Annotated[Principal, requires("history")]
ResourcesDep = Annotated[InferenceResources, _provide(lambda resources: resources)]
"""All resources, for handlers that need many of them."""

ScorerDep = Annotated[Scorer, _provide(lambda resources: resources.scorer)]
HistoryDep = Annotated[History, _provide(lambda resources: resources.history)]
UsageDep = Annotated[Usage, _provide(lambda resources: resources.usage)]
SummariesDep = Annotated[Summaries, _provide(lambda resources: resources.summaries)]
DownloadLimitDep = Annotated[ConcurrencyLimit, _provide(lambda resources: resources.download_limit)]
SettingsDep = Annotated[Settings, _provide(lambda resources: resources.settings)]
ProgressFeedDep = Annotated[ProgressFeed, _provide(lambda resources: resources.progress_feed)]
ConnectionsDep = Annotated[ConnectionRegistry, _provide(lambda resources: resources.connections)]


async def _progress_connection(
    request: HTTPConnection, principal: BatchOwner, connections: ConnectionsDep
) -> AsyncIterator[Connection]:
    with connections.open(request, principal) as connection:
        yield connection


async def _analyze_connection(
    request: HTTPConnection, principal: Analyst, connections: ConnectionsDep
) -> AsyncIterator[Connection]:
    with connections.open(request, principal) as connection:
        yield connection


# Registered until the response has been sent.
ProgressConnection = Annotated[Connection, Depends(_progress_connection)]
AnalyzeConnection = Annotated[Connection, Depends(_analyze_connection)]
