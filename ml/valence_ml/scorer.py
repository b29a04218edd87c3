"""What a scorer answers, and what every scorer offers. No weights and no files here."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from valence_ml.manifest import Manifest

Label = Literal["negative", "positive"]


class Score(msgspec.Struct, frozen=True, gc=False):
    """One text's answer.

    `confidence` is the probability of `label`, between 0.5 and 1; `positive` is the probability of
    the positive class. `low_confidence` is set when no known term was found (linear kind), or when
    the confidence is under the manifest's `low_confidence_below`.
    """

    label: Label
    confidence: float
    positive: float
    low_confidence: bool

    @property
    def probabilities(self) -> dict[Label, float]:
        """Both probabilities, by label; they add up to one."""
        return {"negative": 1.0 - self.positive, "positive": self.positive}


class Contribution(msgspec.Struct, frozen=True, gc=False):
    """What one term, found `count` times, adds to the logit: above zero speaks for positive."""

    term: str
    count: int
    value: float


class Explanation(msgspec.Struct, frozen=True):
    """Why a text was scored so: `logit` is `bias` plus the values of all contributions.

    The contributions come with the strongest first; the probability is `1 / (1 + exp(-logit))`.
    """

    logit: float
    bias: float
    contributions: list[Contribution]


class Scorer(Protocol):
    """A loaded model. Safe to share between threads: nothing in it changes after loading."""

    @property
    def manifest(self) -> Manifest:
        """What the release says about itself."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """The model's version."""

    def score(self, texts: Sequence[str]) -> list[Score]:
        """Score the texts, in their order; one text is a list of one, and any `str` is fine."""

    def explain(self, text: str) -> Explanation | None:
        """Say which terms decided, or None where the kind cannot know (`joblib`)."""


def model_name(scorer: Scorer) -> str:
    """Name the model as answers and records do: `name@version`."""
    return f"{scorer.name}@{scorer.version}"


def decide(positive: float, *, is_positive: bool, known: bool, threshold: float) -> Score:
    """Make a score of a probability.

    The label comes apart from the probability, because a logit of 1e-17 is positive while its
    probability rounds to a half.
    """
    confidence = positive if is_positive else 1.0 - positive
    label: Label = "positive" if is_positive else "negative"
    return Score(label, confidence, positive, not known or confidence < threshold)
