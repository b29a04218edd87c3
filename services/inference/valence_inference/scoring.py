"""Scoring: which texts are taken, and what one text's answer says."""

import asyncio
import time

import structlog

from valence_common.problems import FieldError, Unprocessable
from valence_inference.schemas import analyses as schemas
from valence_ml import ModelError, Score, Scorer, model_name


def text_error(text: str, *, max_characters: int) -> tuple[str, str] | None:
    """The rule that a text breaks, blank or over `longest` characters, and what to say of it."""
    if len(text) > max_characters:
        return "string_too_long", f"At most {max_characters} characters"
    if not text or text.isspace():
        return "blank", "The text is blank"
    return None


def check_text(text: str, *, max_characters: int, field: str = "body.text") -> None:
    """Refuse a text that may not be scored, naming its field."""
    if found := text_error(text, max_characters=max_characters):
        raise Unprocessable([FieldError(field, *found)])


async def score(scorer: Scorer, text: str) -> tuple[Score, float]:
    """Score one text; returns the score and the seconds it took."""
    started = time.perf_counter()
    try:
        if scorer.manifest.kind == "linear":
            (scored,) = scorer.score([text])
        else:
            # Anybody's pipeline, and maybe a slow one: the event loop must go on.
            (scored,) = await asyncio.to_thread(scorer.score, [text])
    except ModelError:
        structlog.get_logger().error("scoring_failed", model=model_name(scorer))
        unscorable = FieldError("body.text", "unscorable", "The model cannot score this text")
        raise Unprocessable([unscorable]) from None
    return scored, time.perf_counter() - started


def explain(scorer: Scorer, text: str) -> schemas.Explanation | None:
    """What each term contributed, or None where the model cannot tell."""
    explanation = scorer.explain(text)
    if explanation is None:
        return None
    return schemas.Explanation(
        bias=explanation.bias,
        logit=explanation.logit,
        terms=[
            schemas.Term(term=part.term, count=part.count, contribution=part.value)
            for part in explanation.contributions
        ],
    )
