"""The parts of the application that handlers ask for, and whom they act for."""

from typing import Annotated

from valence_common.access import requires
from valence_common.downloads import Turns
from valence_common.security import Principal
from valence_common.web import state
from valence_inference.doorbell import Ringer
from valence_inference.history import History
from valence_inference.meter import Meter
from valence_inference.settings import Settings
from valence_inference.summary import Summaries
from valence_inference.usage import Usage
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
SettingsDep = Annotated[Settings, state("settings")]
