"""The inference service's routes: each takes, asks the noun, answers."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from valence_common.access import Authenticated, requires
from valence_common.bodies import strict
from valence_common.db import new_id
from valence_common.models import Prediction
from valence_common.security import Principal
from valence_common.web import API, DatabaseDep, state
from valence_inference import batches, releases, schemas, scoring
from valence_inference.doorbell import Ringer
from valence_inference.history import Filter, History
from valence_inference.meter import ANALYZE, BATCH, Meter
from valence_inference.settings import Settings
from valence_inference.usage import Usage
from valence_ml import Scorer, model_name

analyze_router = APIRouter(prefix=API, route_class=strict("analyze_body_bytes"))
batch_router = APIRouter(prefix=API, route_class=strict("batch_body_bytes"))

Analyst = Annotated[Principal, requires("analyze")]
BatchOwner = Annotated[Principal, requires("batch")]
Historian = Annotated[Principal, requires("history")]
ScorerDep = Annotated[Scorer, state("scorer")]
HistoryDep = Annotated[History, state("history")]
RingerDep = Annotated[Ringer, state("ringer")]
MeterDep = Annotated[Meter, state("meter")]
UsageDep = Annotated[Usage, state("usage")]
SettingsDep = Annotated[Settings, state("settings")]


@analyze_router.post("/sentiment/analyze", tags=["sentiment"], response_model_exclude_unset=True)
async def analyze(
    body: schemas.AnalyzeRequest,
    principal: Analyst,
    scorer: ScorerDep,
    history: HistoryDep,
    usage: UsageDep,
    settings: SettingsDep,
) -> schemas.Analysis:
    """Score one text now and record it in the history."""
    scoring.check_text(body.text, longest=settings.max_text_characters)
    score, seconds = await scoring.score(scorer, body.text)
    prediction = Prediction(
        id=new_id(),
        user_id=principal.user_id,
        text=body.text,
        sentiment=score.label,
        confidence=score.confidence,
        low_confidence=score.low_confidence,
        model=model_name(scorer),
    )
    recorded = await history.record(prediction)
    usage.count(principal, ANALYZE, 1)
    answer = schemas.Analysis(
        id=prediction.id,
        text=body.text,
        sentiment=score.label,
        confidence=score.confidence,
        probabilities=score.probabilities,
        low_confidence=score.low_confidence,
        model=prediction.model,
        processing_time=seconds,
        recorded=recorded,
    )
    if body.explain:
        answer.explanation = scoring.explain(scorer, body.text)
    return answer


@batch_router.post("/sentiment/analyze/batch", status_code=202, tags=["sentiment"])
async def analyze_batch(
    request: Request,
    body: schemas.BatchRequest,
    principal: BatchOwner,
    database: DatabaseDep,
    ringer: RingerDep,
    meter: MeterDep,
    usage: UsageDep,
    settings: SettingsDep,
    response: Response,
) -> schemas.Accepted:
    """Take many texts; they are stored before the answer and scored soon after."""
    scoring.check_texts(
        body.texts, longest=settings.max_text_characters, most=settings.max_batch_texts
    )
    async with meter.batch(request, principal, len(body.texts)):
        batch = await database.run(
            batches.accept, principal.user_id, body.texts, chunk_texts=settings.chunk_texts
        )
    usage.count(principal, BATCH, batch.total)
    await ringer.ring(batch.total // settings.chunk_texts + 1)
    response.headers["Location"] = f"{API}/sentiment/task/{batch.id}"
    return schemas.Accepted(task_id=batch.id, total=batch.total)


@analyze_router.get("/sentiment/task/{task_id}", tags=["sentiment"])
async def task(
    task_id: uuid.UUID, principal: BatchOwner, database: DatabaseDep, settings: SettingsDep
) -> schemas.Task:
    """How far a batch is; with its results once it has ended, if it is small."""
    status = await database.run(
        batches.status, principal.user_id, task_id, inline=settings.inline_results
    )
    return schemas.Task.of(status)


@analyze_router.get("/sentiment/history", tags=["sentiment"])
async def history(
    principal: Historian,
    history: HistoryDep,
    query: Annotated[schemas.HistoryQuery, Query()],
) -> schemas.HistoryPage:
    """What was scored, newest first; `next_cursor` leads to the page after."""
    items, next_cursor = await history.page(
        principal.user_id, _filter(query), limit=query.limit, cursor=query.cursor
    )
    return schemas.HistoryPage(
        items=[schemas.HistoryItem.model_validate(item) for item in items],
        next_cursor=next_cursor,
    )


@analyze_router.delete("/sentiment/history", status_code=204, tags=["sentiment"])
async def erase_history(
    principal: Historian,
    history: HistoryDep,
    query: Annotated[schemas.HistoryFilter, Query()],
) -> None:
    """Delete what was scored: all of it, or what the filter leaves; results of batches stay."""
    await history.erase(principal.user_id, _filter(query))


def _filter(query: schemas.HistoryFilter) -> Filter:
    return Filter(query.sentiment, query.model, query.since, query.until, query.q)


@analyze_router.get("/models", tags=["models"])
async def models(_: Authenticated, scorer: ScorerDep) -> schemas.ModelPage:
    """The models that are served."""
    return schemas.ModelPage(items=[releases.summary(scorer)])


@analyze_router.get("/models/{version}", tags=["models"])
async def model(
    version: Annotated[str, Path(max_length=128)],
    _: Authenticated,
    scorer: ScorerDep,
    settings: SettingsDep,
) -> schemas.Model:
    """A served model's metrics, sources and card; `version` is `name@version` or the version."""
    return releases.describe(scorer, settings.model_dir, version)
