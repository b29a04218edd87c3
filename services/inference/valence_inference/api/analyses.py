"""Analysis of one text."""

from fastapi import APIRouter

from valence_common.web.app import API
from valence_common.web.request_body import strict
from valence_inference import scoring
from valence_inference.api.dependencies import Analyst, HistoryDep, ScorerDep, SettingsDep, UsageDep
from valence_inference.history import prediction_from_score
from valence_inference.metering.limits import ANALYZE
from valence_inference.schemas import analyses as schemas
from valence_inference.settings import MAX_BODY_BYTES
from valence_ml import model_name

router = APIRouter(prefix=API, route_class=strict(MAX_BODY_BYTES), tags=["sentiment"])


@router.post("/sentiment/analyze", response_model_exclude_unset=True)
async def analyze(
    body: schemas.AnalyzeRequest,
    principal: Analyst,
    scorer: ScorerDep,
    history: HistoryDep,
    usage: UsageDep,
    settings: SettingsDep,
) -> schemas.Analysis:
    """Analyze one text.

    The result is recorded in the history.
    """
    scoring.check_text(body.text, max_characters=settings.max_text_characters)
    score, seconds = await scoring.score(scorer, body.text)
    prediction = prediction_from_score(principal.user_id, body.text, score, model_name(scorer))
    recorded = await history.record(prediction)
    usage.count(principal, ANALYZE, 1)
    analysis = schemas.Analysis(
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
        analysis.explanation = schemas.Explanation.from_model(scorer.explain(body.text))
    return analysis
