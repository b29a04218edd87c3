"""How often a model is right."""

import math
from collections.abc import Iterable, Iterator, Sequence

from valence_ml import progress
from valence_ml.data import Examples
from valence_ml.manifest import Metric
from valence_ml.scorer import Scorer

_CHUNK = 512


def evaluate(scorer: Scorer, file: str, examples: Examples) -> Metric:
    """Score a file's texts as they stand, as a user would send them, and compare."""
    return measure(file, examples, _probabilities(scorer, examples.texts))


def measure(file: str, examples: Examples, positives: Iterable[float]) -> Metric:
    """Compare probabilities of 'positive' with the labels of the same order.

    Accuracy counts a probability above a half as positive; log loss is the mean negative natural
    logarithm of the probability given to the right label, no less than 1e-15.
    """
    right, loss = 0, 0.0
    for label, positive in zip(examples.labels, positives, strict=True):
        right += (positive > 0.5) == bool(label)
        loss -= math.log(max(positive if label else 1.0 - positive, 1e-15))
    rows, right = len(examples.labels), int(right)
    return Metric(
        file=file, rows=rows, accuracy=round(right / rows, 4), log_loss=round(loss / rows, 4)
    )


def wrong(examples: Examples, positives: Iterable[float]) -> list[str]:
    """List the texts that get the other label than their own."""
    return [
        text
        for text, label, positive in zip(examples.texts, examples.labels, positives, strict=True)
        if (positive > 0.5) != bool(label)
    ]


def _probabilities(scorer: Scorer, texts: Sequence[str]) -> Iterator[float]:
    for start in progress.track(range(0, len(texts), _CHUNK), "scoring"):
        yield from (score.positive for score in scorer.score(texts[start : start + _CHUNK]))
