"""Train the default model with scikit-learn: select the terms, then fit on those alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from valence_ml import data, progress
from valence_ml.evaluation import measure, misclassified
from valence_ml.manifest import Manifest, ModelError, Source, Training
from valence_ml.packaging import Provenance, pack
from valence_ml.release import check_target
from valence_ml.text import TOKEN_PATTERN, normalise

SEED = 20240501
"""Seed of the solver. The default solver uses no randomness; another one might."""

DESCRIPTION = """\
Sentiment of English texts: TF-IDF of words and pairs of words, scaled by their log-count ratio,
and logistic regression (Wang & Manning, "Baselines and Bigrams", ACL 2012), trained with
scikit-learn on the terms with the largest weights in a first fit, and compiled. The compiled scorer
reproduces scikit-learn's probabilities to within 1e-9.

The settings are the defaults of `Recipe` in `valence_ml/training.py`. They were chosen by accuracy
on held-out parts of the training files. The development files in the table below were measured
during that work; they decided nothing and the model was never trained on them."""

BASELINE_DESCRIPTION = """\
Sentiment of English texts: TF-IDF of words and pairs of words and multinomial naive Bayes,
trained with scikit-learn and compiled. It is the baseline for the default model."""


class Recipe(msgspec.Struct, frozen=True):
    """Hyperparameters; the defaults were chosen on held-out parts of the training files."""

    max_ngram: int = 2
    """Largest number of words in a term."""
    min_texts: int = 3
    """Smallest number of texts that contain a term (scikit-learn's `min_df`)."""
    max_terms: int = 40_000
    """Largest number of terms in the model."""
    C: float = 1.0
    """Inverse of the regularisation strength, as in scikit-learn."""
    smoothing: float = 1.0
    """Added to each term's weight in each class before the log-count ratio."""
    small_file_rows: int = 5_000
    """A file with fewer rows is small: its rows have the weight `small_file_boost`."""
    small_file_boost: float = 3.0


class Corpus(msgspec.Struct, frozen=True):
    """All training texts, cleaned, with their labels and sources."""

    texts: list[str]
    labels: list[int]
    sources: tuple[Source, ...]

    def weights(self, recipe: Recipe) -> list[float]:
        """Return the weight of each row, so that the large files do not outweigh the small ones."""
        return [
            recipe.small_file_boost if source.rows < recipe.small_file_rows else 1.0
            for source in self.sources
            for _ in range(source.rows)
        ]


def load_corpus(directory: Path) -> Corpus:
    """Read the training files of a folder; raise ModelError if they do not hold both labels."""
    files = data.training_files(directory)
    if not files:
        raise ModelError(f"{directory} has no *.train.tsv or *.train.tsv.gz: name another --data")
    texts: list[str] = []
    labels: list[int] = []
    sources = []
    for path in files:
        examples = data.read(path)
        origin = data.origin(path)
        texts += map(data.clean, examples.texts)
        labels += examples.labels
        sources.append(
            Source(
                file=path.name,
                rows=len(examples.texts),
                authors=origin.authors,
                licence=origin.licence,
            )
        )
    if len(set(labels)) < 2:
        raise ModelError(f"{directory} needs rows of both labels, 0 and 1, to train on")
    return Corpus(texts, labels, tuple(sources))


def train_release(
    directory: Path,
    out: Path,
    *,
    name: str,
    version: str,
    baseline: bool = False,
    recipe: Recipe | None = None,
) -> Manifest:
    """Train on a folder's `*.train.tsv`, measure on its `*.dev.tsv`, and pack a release.

    With `baseline`, train the naive Bayes baseline instead. Raise ModelError if the folder has
    nothing to train on or `out` is not empty.
    """
    check_target(out, name=name, version=version)
    corpus = load_corpus(directory)
    recipe = recipe or Recipe()
    try:
        baseline_model = train_baseline(corpus, recipe)
        model = baseline_model if baseline else train(corpus, recipe)
    except ValueError as error:  # raised by scikit-learn when no term remains
        raise ModelError(f"the texts in {directory} are too few to train on ({error})") from None
    metrics, mistakes = [], []
    for path in [*data.development_files(directory), data.EVERYDAY]:
        examples = data.read(path)
        positives = probabilities(model, examples.texts)
        metric = measure(data.stem(path), examples, positives)
        if not baseline:
            reference = measure(
                metric.file, examples, probabilities(baseline_model, examples.texts)
            )
            metric = msgspec.structs.replace(metric, baseline_accuracy=reference.accuracy)
        metrics.append(metric)
        if path == data.EVERYDAY:
            mistakes = misclassified(examples, positives)
    command = f"python -m valence_ml train --data DATA --out OUT --name {name} --version {version}"
    provenance = Provenance(
        sources=corpus.sources,
        metrics=tuple(metrics),
        training=Training(command=command + " --baseline" * baseline, seed=SEED),
        description=BASELINE_DESCRIPTION if baseline else DESCRIPTION,
        mistakes=tuple(mistakes),
    )
    return pack(model, out, name=name, version=version, provenance=provenance)


def probabilities(pipeline: Any, texts: Sequence[str]) -> list[float]:
    """Return the probability of 'positive' for each text."""
    column = pipeline.predict_proba(texts)[:, 1]
    return [float(positive) for positive in column]


def train(corpus: Corpus, recipe: Recipe) -> Pipeline:
    """Train TF-IDF and logistic regression on the terms with the largest weights in a first fit.

    Terms are dropped before the final fit, so packing the pipeline loses nothing. The same corpus
    and recipe give the same weights, bit for bit.
    """
    counter = CountVectorizer(
        preprocessor=normalise,
        token_pattern=TOKEN_PATTERN,
        ngram_range=(1, recipe.max_ngram),
        min_df=min(recipe.min_texts, len(corpus.texts)),
    )
    counts = counter.fit_transform(progress.track(corpus.texts, "reading the texts"))
    terms = counter.get_feature_names_out()
    if len(terms) > recipe.max_terms:
        _, first = progress.run_with_spinner(
            "choosing the terms", lambda: _fit_scaled(counts, corpus, recipe)
        )
        strongest = np.argsort(-np.abs(first.coef_[0]), kind="stable")[: recipe.max_terms]
        selected = np.sort(strongest)
        counts, terms = counts[:, selected], terms[selected]
    weighting, classifier = progress.run_with_spinner(
        "fitting the classifier", lambda: _fit_scaled(counts, corpus, recipe)
    )
    return Pipeline(
        [("vectorizer", _fixed_vectorizer(terms, weighting)), ("classifier", classifier)]
    )


def train_baseline(corpus: Corpus, recipe: Recipe) -> Pipeline:
    """Train the baseline: naive Bayes on the same number of terms, the most frequent ones."""
    vectorizer = TfidfVectorizer(
        preprocessor=normalise,
        token_pattern=TOKEN_PATTERN,
        ngram_range=(1, recipe.max_ngram),
        sublinear_tf=True,
        min_df=min(recipe.min_texts, len(corpus.texts)),
        max_features=recipe.max_terms,
    )
    pipeline = Pipeline([("vectorizer", vectorizer), ("classifier", MultinomialNB())])
    return pipeline.fit(progress.track(corpus.texts, "training the baseline"), corpus.labels)


def _fit_scaled(counts: Any, corpus: Corpus, recipe: Recipe) -> tuple[TfidfTransformer, Any]:
    """Fit on terms scaled by their log-count ratio, and fold the scale into the coefficients.

    The scale lets a rare but decisive word outweigh a common one before the penalty shrinks both:
    Wang & Manning, "Baselines and Bigrams", ACL 2012.
    """
    weighting = TfidfTransformer(sublinear_tf=True)
    vectors = weighting.fit_transform(counts)
    positive = np.array(corpus.labels) == 1
    for_positive = recipe.smoothing + np.asarray(vectors[positive].sum(axis=0)).ravel()
    for_negative = recipe.smoothing + np.asarray(vectors[~positive].sum(axis=0)).ravel()
    ratio = np.log(for_positive / for_positive.sum()) - np.log(for_negative / for_negative.sum())
    classifier = LogisticRegression(C=recipe.C, max_iter=1000, random_state=SEED)
    # One thread: several would sum in another order and differ in the last bit.
    with threadpool_limits(limits=1):
        classifier.fit(
            vectors @ scipy.sparse.diags_array(ratio),
            corpus.labels,
            sample_weight=corpus.weights(recipe),
        )
    classifier.coef_ = classifier.coef_ * ratio
    return weighting, classifier


def _fixed_vectorizer(terms: Any, weighting: TfidfTransformer) -> TfidfVectorizer:
    """Return a vectorizer whose columns are exactly the terms of the final fit."""
    vectorizer = TfidfVectorizer(
        preprocessor=normalise,
        token_pattern=TOKEN_PATTERN,
        ngram_range=(1, max(term.count(" ") for term in terms) + 1),
        sublinear_tf=weighting.sublinear_tf,
        vocabulary={term: column for column, term in enumerate(terms)},
    )
    vectorizer.idf_ = weighting.idf_
    return vectorizer
