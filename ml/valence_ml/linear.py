"""The `linear` kind: TF-IDF and a linear classifier as one dictionary, in plain Python."""

import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from valence_ml import npz
from valence_ml.manifest import Manifest, ModelError
from valence_ml.scorer import Contribution, Explanation, Score, decide
from valence_ml.text import NORMALISERS

WEIGHTS = "weights.npz"


class LinearWeights(msgspec.Struct, frozen=True):
    """One number of each kind per term: its inverse document frequency and its coefficient.

    A term of several tokens has them joined by single spaces, as in scikit-learn.
    """

    terms: list[str]
    # In quotes: `array` takes no subscript at run time before Python 3.12.
    idf: "array[float]"
    coefficients: "array[float]"

    def pack(self) -> bytes:
        """Give the content of `weights.npz`; the terms are one line each, in UTF-8."""
        text = "\n".join(self.terms).encode()
        return npz.write(
            {"terms": array("B", text), "idf": self.idf, "coefficients": self.coefficients}
        )

    @classmethod
    def unpack(cls, data: bytes) -> "LinearWeights":
        """Read the content of `weights.npz`; ValueError when it is not one."""
        try:
            arrays = npz.read(data)
            terms = arrays["terms"].tobytes().decode().split("\n")
            idf, coefficients = arrays["idf"], arrays["coefficients"]
        except KeyError as error:
            raise ValueError(f"array {error} is missing") from None
        if not len(terms) == len(idf) == len(coefficients):
            raise ValueError("the arrays differ in length")
        return cls(terms, array("d", idf), array("d", coefficients))


def _count(count: int) -> float:
    return float(count)


def _sublinear(count: int) -> float:
    return 1.0 + math.log(count)


def _binary(_count: int) -> float:
    return 1.0


_TERM_FREQUENCIES: Mapping[str, Callable[[int], float]] = {
    "count": _count,
    "sublinear": _sublinear,
    "binary": _binary,
}


class LinearScorer:
    """Scores as scikit-learn's `predict_proba` does, to 1e-9.

    A term found `c` times weighs `x = tf(c) * idf` in the text's vector, and the logit is
    `bias + sum(x * coefficient) / norm` with `norm = sqrt(sum(x * x))`, or 1 without a norm. Both
    sums are kept in one complex number: the dictionary holds `idf * coefficient + idf² j` for each
    term found, so one C-level `sum` gives both at once.
    """

    def __init__(self, manifest: Manifest, weights: LinearWeights) -> None:
        settings = manifest.linear
        if settings is None or settings.normaliser not in NORMALISERS:
            raise ModelError("the manifest does not say how the text becomes terms: pack it again")
        lowest, highest = settings.ngram_range
        if not 1 <= lowest <= highest:
            raise ModelError("the manifest's ngram_range is not a range: pack it again")
        self._manifest = manifest
        self._bias = settings.bias
        self._normed = settings.norm == "l2"
        self._threshold = manifest.low_confidence_below
        self._normalise = NORMALISERS[settings.normaliser]
        try:
            self._find = re.compile(settings.token_pattern).findall
        except re.error as error:
            raise ModelError(f"the manifest's token_pattern is none: {error}") from None
        self._lowest, self._highest = lowest, highest
        self._frequency = _TERM_FREQUENCIES[settings.tf]
        self._terms = {
            term: complex(idf * coefficient, idf * idf)
            for term, idf, coefficient in zip(
                weights.terms, weights.idf, weights.coefficients, strict=True
            )
        }

    @property
    def manifest(self) -> Manifest:
        """What the release says about itself."""
        return self._manifest

    @property
    def name(self) -> str:
        """The model's name."""
        return self._manifest.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self._manifest.version

    def score(self, texts: Sequence[str]) -> list[Score]:
        """Score the texts, in their order; one text is a list of one, and any `str` is fine."""
        return [self._score(text) for text in texts]

    def explain(self, text: str) -> Explanation:
        """Say which terms decided: what each adds to the logit, the strongest first."""
        counts = Counter(self._found(text))
        weighed = [
            (term, count, self._frequency(count), self._terms[term])
            for term, count in counts.items()
        ]
        squares = math.fsum(tf * tf * value.imag for _, _, tf, value in weighed)
        norm = math.sqrt(squares) if self._normed and weighed else 1.0
        contributions = [
            Contribution(term, count, tf * value.real / norm) for term, count, tf, value in weighed
        ]
        contributions.sort(key=lambda contribution: -abs(contribution.value))
        logit = math.fsum([self._bias, *(each.value for each in contributions)])
        return Explanation(logit, self._bias, contributions)

    def _score(self, text: str) -> Score:
        found = self._found(text)
        if not found:
            return self._decide(self._bias, known=False)
        total = sum(map(self._terms.__getitem__, found), 0j)
        if len(set(found)) < len(found):
            total += self._repeats(found)
        dot = total.real / math.sqrt(total.imag) if self._normed else total.real
        return self._decide(self._bias + dot, known=True)

    def _repeats(self, found: list[str]) -> complex:
        """Correct a sum over occurrences, where a term found `c` times has counted `c` times.

        It should count `tf(c)` times, and `tf(c)²` times in the squares.
        """
        correction = 0j
        for term, count in Counter(found).items():
            if count > 1:
                tf, value = self._frequency(count), self._terms[term]
                correction += complex(value.real * (tf - count), value.imag * (tf * tf - count))
        return correction

    def _found(self, text: str) -> list[str]:
        """List the known terms in a text, with repeats: tokens, then longer and longer runs."""
        tokens: list[str] = self._find(self._normalise(text))
        runs = tokens.copy() if self._lowest == 1 else []
        for size in range(max(self._lowest, 2), self._highest + 1):
            runs += map(" ".join, zip(*(tokens[start:] for start in range(size)), strict=False))
        return list(filter(self._terms.__contains__, runs))

    def _decide(self, logit: float, *, known: bool) -> Score:
        # Both forms keep exp's argument at or under zero, where it cannot overflow.
        if logit > 0.0:
            positive = 1.0 / (1.0 + math.exp(-logit))
            return decide(positive, is_positive=True, known=known, threshold=self._threshold)
        small = math.exp(logit)
        return decide(
            small / (1.0 + small), is_positive=False, known=known, threshold=self._threshold
        )
