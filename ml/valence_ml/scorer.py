"""The scorer interface, and the values that it returns."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from valence_ml.manifest import Manifest

Label = Literal["negative", "positive"]


class Score(msgspec.Struct, frozen=True, gc=False):
    """The sentiment of one text.

    `confidence` is the probability of `label`, between 0.5 and 1; `positive` is the probability of
    the positive class. `low_confidence` is set when the text contains no known term (linear kind),
    or when the confidence is below the manifest's `low_confidence_below`.
    """

    label: Label
    confidence: float
    positive: float
    low_confidence: bool

    @property
    def probabilities(self) -> dict[Label, float]:
        """Both probabilities by label; their sum is 1."""
        return {"negative": 1.0 - self.positive, "positive": self.positive}


class Contribution(msgspec.Struct, frozen=True, gc=False):
    """What one term, occurring `count` times, adds to the logit; above 0 is towards positive."""

    term: str
    count: int
    value: float


class Explanation(msgspec.Struct, frozen=True):
    """How a score came about: `logit` is `bias` plus the values of all contributions.

    The contributions are ordered by absolute value, largest first. The probability of 'positive' is
    `1 / (1 + exp(-logit))`.
    """

    logit: float
    bias: float
    contributions: list[Contribution]


class Scorer(Protocol):
    """A loaded model. It is immutable, so threads can share it."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of the release."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """The model's version."""

    def score(self, texts: Sequence[str]) -> list[Score]:
        """Return one score per text, in order. Any `str` is valid."""

    def explain(self, text: str) -> Explanation | None:
        """Return the contribution of each term, or None if the kind cannot tell (`joblib`)."""


def model_name(scorer: Scorer) -> str:
    """Return `name@version`, as in API responses and stored rows."""
    return f"{scorer.name}@{scorer.version}"


def decide(positive: float, *, is_positive: bool, known: bool, threshold: float) -> Score:
    """Build a score from a probability.

    The label is a separate argument, because a logit of 1e-17 is positive while its probability
    rounds to 0.5.
    """
    confidence = positive if is_positive else 1.0 - positive
    label: Label = "positive" if is_positive else "negative"
    return Score(label, confidence, positive, not known or confidence < threshold)
