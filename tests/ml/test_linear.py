"""The compiled scorer agrees with scikit-learn to within 1e-9 on any text."""

import itertools
import math
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline

import valence_ml
from valence_ml import packaging, release
from valence_ml.compiling import reference_pipeline
from valence_ml.data import Examples
from valence_ml.linear import WEIGHTS, LinearWeights
from valence_ml.text import TOKEN_PATTERN, normalise

ODD = [
    "",
    " \t\r\n\x0b\x0c",
    "\x00",
    "good\x00bad",
    "\ud800 lone \udfff good",
    "\U0001f600" * 100,
    "a" * 10_000,
    "good " * 2_000,
    "not good, not bad. " * 500,
    "'" * 10_000,
    "it's" * 2_500,
    "a'" * 5_000,
    "don\u2019t DON'T don\u02bct don\u2032t",
    "they 've \u2032ve you 'll he 'd i 'm , it does n't",
    "\u0130I\u0131i \u1e9e \ufb01 \u03a3\u03c3\u03c2",
    "e\u0301 \u00e9 \u200d\u200b\u2060",
    "\u3053\u306e\u6620\u753b",
    "\u0661\u0662\u0663 1e309 -0",
    "<br /><script>good</script>",
    "\u2028\u2029\u0085",
]
VECTORIZERS = {
    "valence": TfidfVectorizer(
        preprocessor=normalise, token_pattern=TOKEN_PATTERN, ngram_range=(1, 2), sublinear_tf=True
    ),
    "plain": TfidfVectorizer(),
    "trigrams": TfidfVectorizer(ngram_range=(1, 3), min_df=2, smooth_idf=False),
    "pairs only": TfidfVectorizer(ngram_range=(2, 2)),
    "runs of two to four": TfidfVectorizer(ngram_range=(2, 4), sublinear_tf=True),
    "no norm": TfidfVectorizer(norm=None, sublinear_tf=True),
    "binary": TfidfVectorizer(binary=True, ngram_range=(1, 2)),
    "no idf, case kept": TfidfVectorizer(use_idf=False, lowercase=False),
    "tokens with spaces": TfidfVectorizer(token_pattern=r"\w+ \w+|\w+", ngram_range=(1, 2)),
    "pattern with a group": TfidfVectorizer(token_pattern=r"(\w+)[.!]?"),
    "counts": CountVectorizer(max_features=500),
    "binary counts": CountVectorizer(binary=True, ngram_range=(1, 2)),
}
CLASSIFIERS = {
    "logistic regression": LogisticRegression(C=10),
    "naive Bayes": MultinomialNB(),
    "SGD": SGDClassifier(loss="log_loss", random_state=0),
}


APOSTROPHES = "\u2018\u2019\u02bc\uff07\u2032\u00b4"
CONTRACTIONS = ("n't", "'t", "'s", "'re", "'ve", "'ll", "'d", "'m")


def normalise_independently(text: str) -> str:
    """The normalisation again, written for the reference: an error in `normalise` shows."""
    text = text.lower()
    for apostrophe in APOSTROPHES:
        text = text.replace(apostrophe, "'")
    words = text.split(" ")
    joined = words[:1]
    for before, word in itertools.pairwise(words):
        after_word = re.fullmatch(r"\w", before[-1:]) is not None
        contraction = any(re.match(rf"{ending}(?!\w)", word) for ending in CONTRACTIONS)
        joined += [word] if after_word and contraction else [" ", word]
    return "".join(joined)


def shuffled(sample: Examples, count: int) -> list[str]:
    """Texts of the sample's words in sequences that it does not have, with many repeats."""
    words = " ".join(sample.texts).split()
    generator = random.Random(0)
    return [" ".join(generator.choices(words, k=generator.randint(1, 80))) for _ in range(count)]


def largest_difference(scorer: valence_ml.Scorer, pipeline: object, texts: list[str]) -> float:
    expected = pipeline.predict_proba(texts)[:, 1]
    actual = np.array([score.positive for score in scorer.score(texts)])
    return float(np.abs(expected - actual).max())


@pytest.fixture(scope="session")
def reference() -> Pipeline:
    """The default model in scikit-learn, with a normaliser that shares no code with the scorer."""
    manifest, files = release.read(valence_ml.DEFAULT_MODEL)
    pipeline = reference_pipeline(manifest, LinearWeights.unpack(files[WEIGHTS]))
    pipeline["vectorizer"].preprocessor = normalise_independently
    return pipeline


# A vectorizer and a classifier are compiled apart from each other: each occurs, not each pair.
@pytest.mark.parametrize(
    ("vectorizer", "classifier"),
    [
        *((vectorizer, "logistic regression") for vectorizer in VECTORIZERS),
        *itertools.product(["valence", "counts"], ["naive Bayes", "SGD"]),
    ],
)
def test_compiled_pipeline_gives_the_probabilities_of_scikit_learn(
    vectorizer: str, classifier: str, sample: Examples, tmp_path: Path
) -> None:
    """A compiled pipeline agrees to within 1e-9 after it was packed and loaded."""
    pipeline = make_pipeline(VECTORIZERS[vectorizer], CLASSIFIERS[classifier]).fit(*sample)
    packaging.pack(pipeline, tmp_path / "release", name="small", version="1")
    scorer = valence_ml.load(tmp_path / "release")
    texts = sample.texts + ODD + shuffled(sample, 300)
    assert largest_difference(scorer, pipeline, texts) <= 1e-9


def test_default_model_gives_the_probabilities_of_its_reference(
    scorer: valence_ml.Scorer, reference: Pipeline, sample: Examples
) -> None:
    """Thousands of texts, unusual ones among them, agree to within 1e-9 with scikit-learn."""
    texts = sample.texts + ODD + shuffled(sample, 4_000)
    assert largest_difference(scorer, reference, texts) <= 1e-9


# Session fixtures only: they do not change between examples.
@settings(max_examples=300, deadline=None)
@given(
    text=st.text(st.characters(codec=None), max_size=300)
    | st.lists(
        st.sampled_from(
            [
                *("not", "good", "bad", "isn't", "isn\u2019t", "isn\u2032t"),
                *("it", "they", *CONTRACTIONS, "!", "\x00", "\ud83d"),
            ]
        )
    ).map(" ".join)
)
def test_any_text_is_scored_as_scikit_learn_does(
    text: str, scorer: valence_ml.Scorer, reference: Pipeline
) -> None:
    """No text raises, and none differs by more than 1e-9."""
    (score,) = scorer.score([text])
    assert score.positive == pytest.approx(reference.predict_proba([text])[0, 1], abs=1e-9)
    assert 0.5 <= score.confidence <= 1.0
    assert sum(score.probabilities.values()) == pytest.approx(1.0)
    assert score.probabilities[score.label] == score.confidence


def test_long_odd_texts_take_linear_time(scorer: valence_ml.Scorer) -> None:
    """Hundreds of thousands of characters take less than 2 s: nothing is quadratic."""

    def seconds(text: str) -> float:
        begin = time.perf_counter()
        scorer.score([text])
        return time.perf_counter() - begin

    for odd in ("'", "a'", "a", "it's", "\u2019", "a b "):
        assert seconds(odd * 100_000) < 2.0


def test_many_texts_are_scored_as_each_alone(scorer: valence_ml.Scorer, sample: Examples) -> None:
    """The score of a text does not depend on the other texts of the list."""
    assert scorer.score(sample.texts) == [scorer.score([text])[0] for text in sample.texts]
    assert scorer.score([]) == []


@pytest.mark.parametrize("text", ["", " ", "\U0001f600", "qwrtzpfgh", "\u3053\u306e"])
def test_text_without_known_terms_is_low_confidence(text: str, scorer: valence_ml.Scorer) -> None:
    """A text without known terms is marked, whatever the bias."""
    assert scorer.score([text])[0].low_confidence


def test_low_confidence_is_what_the_manifest_says(
    scorer: valence_ml.Scorer, sample: Examples
) -> None:
    """With known terms, the manifest's threshold decides."""
    threshold = scorer.manifest.low_confidence_below
    for text, score in zip(sample.texts, scorer.score(sample.texts), strict=True):
        if scorer.explain(text).contributions:
            assert score.low_confidence == (score.confidence < threshold)


@pytest.mark.parametrize("text", [*ODD, "not good at all, not good", "I love it"])
def test_explanation_adds_up_to_the_logit(text: str, scorer: valence_ml.Scorer) -> None:
    """The logit is the bias plus the contributions, and gives the probability."""
    explanation = scorer.explain(text)
    total = explanation.bias + sum(each.value for each in explanation.contributions)
    assert total == pytest.approx(explanation.logit, abs=1e-9)
    probability = 1 / (1 + math.exp(-explanation.logit))
    assert probability == pytest.approx(scorer.score([text])[0].positive, abs=1e-9)


def test_explanation_counts_terms_and_starts_with_the_strongest(
    scorer: valence_ml.Scorer,
) -> None:
    """Each term is listed once, with its count; pairs of words are terms too."""
    contributions = scorer.explain("Not good, NOT good!").contributions
    assert {each.term: each.count for each in contributions}["not good"] == 2
    strengths = [abs(each.value) for each in contributions]
    assert strengths == sorted(strengths, reverse=True)


def test_extreme_logits_do_not_overflow(sample: Examples, tmp_path: Path) -> None:
    """Without a norm, the logit of a long text can be in the thousands: the result is 0 or 1."""
    pipeline = make_pipeline(TfidfVectorizer(norm=None), LogisticRegression(C=1e6)).fit(*sample)
    packaging.pack(pipeline, tmp_path / "release", name="small", version="1")
    scorer = valence_ml.load(tmp_path / "release")
    scores = scorer.score(["great " * 2_000, "bad " * 2_000])
    assert [(score.label, score.confidence) for score in scores] == [
        ("positive", 1.0),
        ("negative", 1.0),
    ]
