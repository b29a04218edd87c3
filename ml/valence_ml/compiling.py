"""Compile a scikit-learn text pipeline to the `linear` kind, and back. Needs scikit-learn."""

import re
from array import array
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline

from valence_ml.linear import LinearWeights
from valence_ml.manifest import LinearSettings, Manifest, ModelError
from valence_ml.pipeline import positive_column
from valence_ml.text import NORMALISERS, normalise


class CannotCompileError(ModelError):
    """The linear kind cannot represent this pipeline exactly."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot compile to the linear kind: {reason}; use the joblib kind")


def compile_pipeline(pipeline: Any) -> tuple[LinearSettings, LinearWeights]:
    """Compile a fitted pipeline of a TF-IDF or count vectorizer and a binary linear classifier.

    Raise CannotCompileError, naming the first setting that the linear kind does not support.
    """
    if not isinstance(pipeline, Pipeline) or len(pipeline.steps) != 2:
        raise CannotCompileError("it is not a Pipeline of a vectorizer and a classifier")
    vectorizer, classifier = (step for _, step in pipeline.steps)
    # Exact types: a subclass may compute something else.
    if type(vectorizer) not in {TfidfVectorizer, CountVectorizer}:
        raise CannotCompileError(f"its vectorizer is a {type(vectorizer).__name__}")
    column = positive_column(pipeline)
    coefficients, bias = _logit_weights(classifier)
    if column == 0:
        coefficients, bias = -coefficients, -bias
    normaliser = _normaliser_name(vectorizer)
    _reject_unsupported(vectorizer)
    vocabulary: dict[str, int] = vectorizer.vocabulary_
    terms = sorted(vocabulary, key=vocabulary.__getitem__)
    if any("\n" in term or not _is_encodable(term) for term in terms):
        raise CannotCompileError("a term contains a line break or a lone surrogate")
    weighted = type(vectorizer) is TfidfVectorizer
    idf = vectorizer.idf_ if weighted and vectorizer.use_idf else np.ones(len(terms))
    if not (np.isfinite(coefficients).all() and np.isfinite(idf).all() and np.isfinite(bias)):
        raise CannotCompileError("a weight is not finite")
    if (idf <= 0).any():
        raise CannotCompileError("an inverse document frequency is not positive")
    settings = LinearSettings(
        normaliser=normaliser,
        token_pattern=vectorizer.token_pattern,
        ngram_range=(vectorizer.ngram_range[0], vectorizer.ngram_range[1]),
        tf=_tf_name(vectorizer, weighted=weighted),
        norm=vectorizer.norm if weighted else None,
        bias=bias,
    )
    return settings, LinearWeights(terms, array("d", idf), array("d", coefficients))


def reference_pipeline(manifest: Manifest, weights: LinearWeights) -> Pipeline:
    """Rebuild the scikit-learn pipeline that a linear release was compiled from.

    Tests and benchmarks compare the compiled scorer with its `predict_proba`. Raise ModelError for
    a release of another kind.
    """
    settings = manifest.linear
    if settings is None:
        raise ModelError(f"{manifest.name} is not of the linear kind and has no reference pipeline")
    vectorizer = TfidfVectorizer(
        lowercase=settings.normaliser == "lower",
        preprocessor=normalise if settings.normaliser == "valence" else None,
        token_pattern=settings.token_pattern,
        ngram_range=settings.ngram_range,
        sublinear_tf=settings.tf == "sublinear",
        binary=settings.tf == "binary",
        norm=settings.norm,
        vocabulary={term: column for column, term in enumerate(weights.terms)},
    )
    vectorizer.idf_ = np.array(weights.idf)
    classifier = LogisticRegression()
    classifier.classes_ = np.array([0, 1])
    classifier.coef_ = np.array([weights.coefficients])
    classifier.intercept_ = np.array([settings.bias])
    classifier.n_features_in_ = len(weights.terms)
    return Pipeline([("vectorizer", vectorizer), ("classifier", classifier)])


def _logit_weights(classifier: Any) -> tuple[Any, float]:
    """Return the coefficients and the bias of the logit of a classifier's second class."""
    if type(classifier) is LogisticRegression or (
        type(classifier) is SGDClassifier and classifier.loss == "log_loss"
    ):
        return classifier.coef_[0].astype(np.float64), float(np.ravel(classifier.intercept_)[0])
    if type(classifier) is MultinomialNB:
        # The two classes' joint log-likelihoods are linear in the counts, and so is their
        # difference: McCallum & Nigam, "A comparison of event models", 1998.
        likelihood, prior = classifier.feature_log_prob_, classifier.class_log_prior_
        return likelihood[1] - likelihood[0], float(prior[1] - prior[0])
    raise CannotCompileError(f"its classifier is a {type(classifier).__name__}")


def _normaliser_name(vectorizer: Any) -> str:
    if vectorizer.preprocessor is None:
        return "lower" if vectorizer.lowercase else "none"
    # With a preprocessor, scikit-learn ignores `lowercase`.
    if vectorizer.preprocessor is NORMALISERS["valence"]:
        return "valence"
    raise CannotCompileError("it has a custom preprocessor")


def _reject_unsupported(vectorizer: Any) -> None:
    plain: dict[str, str | None] = {"analyzer": "word", "input": "content"}
    plain |= {"tokenizer": None, "stop_words": None, "strip_accents": None}
    for name, value in plain.items():
        if getattr(vectorizer, name) != value:
            raise CannotCompileError(f"its vectorizer sets {name}")
    if np.dtype(vectorizer.dtype) not in {np.dtype(np.float64), np.dtype(np.int64)}:
        raise CannotCompileError("its vectorizer computes in less than 64 bits")
    if getattr(vectorizer, "norm", None) not in {None, "l2"}:
        raise CannotCompileError(f"its vectorizer's norm is {vectorizer.norm}")
    if re.compile(vectorizer.token_pattern).groups > 1:
        raise CannotCompileError("its token pattern has several groups")


def _tf_name(vectorizer: Any, *, weighted: bool) -> Any:
    if vectorizer.binary:
        return "binary"  # also when sublinear: 1 + log(1) = 1
    return "sublinear" if weighted and vectorizer.sublinear_tf else "count"


def _is_encodable(term: str) -> bool:
    try:
        term.encode()
    except UnicodeEncodeError:
        return False
    return True
