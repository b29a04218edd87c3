"""Accuracy and log loss of a model."""

import math
from collections.abc import Iterable, Iterator, Sequence

from valence_ml import progress
from valence_ml.data import Examples
from valence_ml.manifest import Metric
from valence_ml.scorer import Scorer

_CHUNK = 512


def evaluate(scorer: Scorer, file: str, examples: Examples) -> Metric:
    """Score a file's texts without cleaning them, and compare with their labels."""
    return measure(file, examples, _probabilities(scorer, examples.texts))


def measure(file: str, examples: Examples, positives: Iterable[float]) -> Metric:
    """Compare the probabilities of 'positive' with the labels, in the same order.

    Accuracy counts a probability above 0.5 as positive. Log loss is the mean negative natural
    logarithm of the probability of the true label, clipped at 1e-15.
    """
    correct, loss = 0, 0.0
    for label, positive in zip(examples.labels, positives, strict=True):
        correct += (positive > 0.5) == bool(label)
        loss -= math.log(max(positive if label else 1.0 - positive, 1e-15))
    rows, correct = len(examples.labels), int(correct)
    return Metric(
        file=file, rows=rows, accuracy=round(correct / rows, 4), log_loss=round(loss / rows, 4)
    )


def misclassified(examples: Examples, positives: Iterable[float]) -> list[str]:
    """Return the texts whose predicted label is not their own."""
    return [
        text
        for text, label, positive in zip(examples.texts, examples.labels, positives, strict=True)
        if (positive > 0.5) != bool(label)
    ]


def _probabilities(scorer: Scorer, texts: Sequence[str]) -> Iterator[float]:
    for start in progress.track(range(0, len(texts), _CHUNK), "scoring"):
        yield from (score.positive for score in scorer.score(texts[start : start + _CHUNK]))
