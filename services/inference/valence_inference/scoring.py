"""Scoring of single texts: which texts are accepted, and their scores."""

import asyncio
import time

import structlog

from valence_common.problems import FieldError, Unprocessable
from valence_ml import ModelError, Score, Scorer, model_name


def text_error(text: str, *, max_characters: int) -> tuple[str, str] | None:
    """Return the rule that a text breaks with a message, or None for a text that can be scored."""
    if len(text) > max_characters:
        return "string_too_long", f"At most {max_characters} characters"
    if not text or text.isspace():
        return "blank", "The text is blank"
    return None


def check_text(text: str, *, max_characters: int, field: str = "body.text") -> None:
    """Raise `Unprocessable`, naming the field, for a text that cannot be scored."""
    if error := text_error(text, max_characters=max_characters):
        raise Unprocessable([FieldError(field, *error)])


async def score(scorer: Scorer, text: str) -> tuple[Score, float]:
    """Score one text; return the score and the time it took, in seconds."""
    started = time.perf_counter()
    try:
        if scorer.manifest.kind == "linear":
            (result,) = scorer.score([text])
        else:
            # An operator's own pipeline can be slow, and must not block the event loop.
            (result,) = await asyncio.to_thread(scorer.score, [text])
    except ModelError:
        structlog.get_logger().error("scoring_failed", model=model_name(scorer))
        unscorable = FieldError("body.text", "unscorable", "The model cannot score this text")
        raise Unprocessable([unscorable]) from None
    return result, time.perf_counter() - started
