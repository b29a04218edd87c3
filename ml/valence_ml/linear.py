"""The `linear` kind: TF-IDF and a linear classifier as one dictionary in plain Python."""

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
    """The terms, with the inverse document frequency and the coefficient of each.

    The tokens of an n-gram are joined by single spaces, as in scikit-learn.
    """

    terms: list[str]
    # In quotes: `array` cannot be subscripted at run time before Python 3.12.
    idf: "array[float]"
    coefficients: "array[float]"

    def pack(self) -> bytes:
        """Return the content of `weights.npz`; the terms are UTF-8, one a line."""
        text = "\n".join(self.terms).encode()
        return npz.write(
            {"terms": array("B", text), "idf": self.idf, "coefficients": self.coefficients}
        )

    @classmethod
    def unpack(cls, data: bytes) -> "LinearWeights":
        """Read the content of `weights.npz`; raise ValueError for anything else."""
        try:
            arrays = npz.read(data)
            terms = arrays["terms"].tobytes().decode().split("\n")
            idf, coefficients = arrays["idf"], arrays["coefficients"]
        except KeyError as error:
            raise ValueError(f"array {error} is missing") from None
        if not len(terms) == len(idf) == len(coefficients):
            raise ValueError("the arrays differ in length")
        return cls(terms, array("d", idf), array("d", coefficients))


def _count_tf(count: int) -> float:
    return float(count)


def _sublinear_tf(count: int) -> float:
    return 1.0 + math.log(count)


def _binary_tf(_count: int) -> float:
    return 1.0


_TERM_FREQUENCIES: Mapping[str, Callable[[int], float]] = {
    "count": _count_tf,
    "sublinear": _sublinear_tf,
    "binary": _binary_tf,
}


class LinearScorer:
    """A scorer that reproduces scikit-learn's `predict_proba` to within 1e-9.

    A term that occurs `c` times has the weight `x = tf(c) * idf` in the text's vector. The logit is
    `bias + sum(x * coefficient) / norm` with `norm = sqrt(sum(x * x))`, or 1 without a norm. One
    complex number holds both sums: the dictionary maps each term to `idf * coefficient + idf² j`,
    so one C-level `sum` computes them together.
    """

    def __init__(self, manifest: Manifest, weights: LinearWeights) -> None:
        settings = manifest.linear
        if settings is None or settings.normaliser not in NORMALISERS:
            raise ModelError(
                "the manifest does not say how to split a text into terms: pack the model again"
            )
        min_n, max_n = settings.ngram_range
        if not 1 <= min_n <= max_n:
            raise ModelError("the manifest's ngram_range is not a range: pack the model again")
        self._manifest = manifest
        self._bias = settings.bias
        self._normed = settings.norm == "l2"
        self._threshold = manifest.low_confidence_below
        self._normalise = NORMALISERS[settings.normaliser]
        try:
            self._tokenise = re.compile(settings.token_pattern).findall
        except re.error as error:
            raise ModelError(f"the manifest's token_pattern is invalid: {error}") from None
        self._min_n, self._max_n = min_n, max_n
        self._tf = _TERM_FREQUENCIES[settings.tf]
        self._terms = {
            term: complex(idf * coefficient, idf * idf)
            for term, idf, coefficient in zip(
                weights.terms, weights.idf, weights.coefficients, strict=True
            )
        }

    @property
    def manifest(self) -> Manifest:
        """The manifest of the release."""
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
        """Return one score per text, in order. Any `str` is valid."""
        return [self._score(text) for text in texts]

    def explain(self, text: str) -> Explanation:
        """Return what each term adds to the logit, ordered by absolute value, largest first."""
        counts = Counter(self._known_terms(text))
        weighted = [
            (term, count, self._tf(count), self._terms[term]) for term, count in counts.items()
        ]
        squares = math.fsum(tf * tf * value.imag for _, _, tf, value in weighted)
        norm = math.sqrt(squares) if self._normed and weighted else 1.0
        contributions = [
            Contribution(term, count, tf * value.real / norm) for term, count, tf, value in weighted
        ]
        contributions.sort(key=lambda contribution: -abs(contribution.value))
        logit = math.fsum([self._bias, *(each.value for each in contributions)])
        return Explanation(logit, self._bias, contributions)

    def _score(self, text: str) -> Score:
        terms = self._known_terms(text)
        if not terms:
            return self._decide(self._bias, known=False)
        total = sum(map(self._terms.__getitem__, terms), 0j)
        if len(set(terms)) < len(terms):
            total += self._repeat_correction(terms)
        dot = total.real / math.sqrt(total.imag) if self._normed else total.real
        return self._decide(self._bias + dot, known=True)

    def _repeat_correction(self, terms: list[str]) -> complex:
        """Return what to add to a sum over occurrences, in which a term counts `c` times.

        It must count `tf(c)` times, and `tf(c)²` times in the sum of squares.
        """
        correction = 0j
        for term, count in Counter(terms).items():
            if count > 1:
                tf, value = self._tf(count), self._terms[term]
                correction += complex(value.real * (tf - count), value.imag * (tf * tf - count))
        return correction

    def _known_terms(self, text: str) -> list[str]:
        """Return the known n-grams of a text, with repeats, shortest first."""
        tokens: list[str] = self._tokenise(self._normalise(text))
        ngrams = tokens.copy() if self._min_n == 1 else []
        for n in range(max(self._min_n, 2), self._max_n + 1):
            ngrams += map(" ".join, zip(*(tokens[start:] for start in range(n)), strict=False))
        return list(filter(self._terms.__contains__, ngrams))

    def _decide(self, logit: float, *, known: bool) -> Score:
        # Both branches keep the argument of exp at or below zero, where it cannot overflow.
        if logit > 0.0:
            positive = 1.0 / (1.0 + math.exp(-logit))
            return decide(positive, is_positive=True, known=known, threshold=self._threshold)
        odds = math.exp(logit)
        return decide(
            odds / (1.0 + odds), is_positive=False, known=known, threshold=self._threshold
        )
