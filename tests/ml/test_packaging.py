"""A pipeline is compiled exactly, or packed behind its hash with the reason."""

import hashlib
import json
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler

import valence_ml
from valence_ml import packaging
from valence_ml.compiling import CannotCompileError, compile_pipeline
from valence_ml.data import Examples
from valence_ml.pipeline import PipelineScorer


def shout(text: str) -> str:
    return text.upper()


class Subclass(TfidfVectorizer):
    pass


REFUSED = {
    "its classifier is a RandomForestClassifier": (
        TfidfVectorizer(),
        RandomForestClassifier(n_estimators=3, random_state=0),
    ),
    "its classifier is a BernoulliNB": (TfidfVectorizer(), BernoulliNB()),
    "its classifier is a ComplementNB": (TfidfVectorizer(), ComplementNB()),
    "its vectorizer is a HashingVectorizer": (HashingVectorizer(), LogisticRegression()),
    "its vectorizer is a Subclass": (Subclass(), LogisticRegression()),
    "Pipeline of a vectorizer and a classifier": (
        TfidfVectorizer(),
        MaxAbsScaler(),
        LogisticRegression(),
    ),
    "sets analyzer": (TfidfVectorizer(analyzer="char"), LogisticRegression()),
    "sets tokenizer": (
        TfidfVectorizer(tokenizer=str.split, token_pattern=None),
        LogisticRegression(),
    ),
    "sets stop_words": (TfidfVectorizer(stop_words="english"), LogisticRegression()),
    "sets strip_accents": (TfidfVectorizer(strip_accents="unicode"), LogisticRegression()),
    "a custom preprocessor": (TfidfVectorizer(preprocessor=shout), LogisticRegression()),
    "norm is l1": (TfidfVectorizer(norm="l1"), LogisticRegression()),
    "less than 64 bits": (TfidfVectorizer(dtype=np.float32), LogisticRegression()),
    "line break": (TfidfVectorizer(token_pattern=r"(?s)..."), LogisticRegression()),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_linear_is_refused_with_the_reason(reason: str, sample: Examples) -> None:
    """Nothing is compiled approximately: the error names the reason and what to do."""
    texts = [text.replace(".", "\n") for text in sample.texts]
    pipeline = make_pipeline(*REFUSED[reason]).fit(texts, sample.labels)
    with pytest.raises(CannotCompileError, match=f"{reason}.*use the joblib kind"):
        compile_pipeline(pipeline)


def test_settings_changed_after_fitting_are_noticed(sample: Examples, tmp_path: Path) -> None:
    """The golden predictions reveal a pipeline that does not do what its settings say."""
    vectorizer = CountVectorizer().fit(sample.texts)
    classifier = LogisticRegression().fit(vectorizer.transform(sample.texts), sample.labels)
    pipeline = Pipeline([("vectorizer", vectorizer), ("classifier", classifier)])
    weighted = TfidfVectorizer(vocabulary=vectorizer.vocabulary_).fit(sample.texts)
    weighted.set_params(norm=None)
    pipeline.steps[0] = ("vectorizer", weighted)
    with pytest.raises(CannotCompileError, match="other probabilities"):
        packaging.pack(pipeline, tmp_path / "release", name="x", version="1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "classes",
    [("negative", "positive"), ("pos", "neg"), (False, True), (1, -1), ("0", "1")],
)
def test_classes_may_have_any_usual_name(
    classes: tuple[object, object], sample: Examples, tmp_path: Path
) -> None:
    """Whichever column is positive, the scores are of 'positive'."""
    by_label = dict(enumerate(classes)) if str(classes[0]) not in {"pos", "1"} else None
    names = by_label or {0: classes[1], 1: classes[0]}
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression())
    pipeline.fit(sample.texts, [names[label] for label in sample.labels])
    packaging.pack(pipeline, tmp_path / "release", name="x", version="1")
    scorer = valence_ml.load(tmp_path / "release")
    column = list(pipeline.classes_).index(names[1])
    assert [score.positive for score in scorer.score(sample.texts)] == pytest.approx(
        pipeline.predict_proba(sample.texts)[:, column], abs=1e-9
    )


@pytest.mark.parametrize(
    ("labels", "model"),
    [
        (["a", "b"], LogisticRegression()),
        ([0, 1], RidgeClassifier()),
        ([0, 1], LinearRegression()),
    ],
)
def test_pipeline_without_two_probabilities_is_refused(
    labels: list[object], model: object, sample: Examples, tmp_path: Path
) -> None:
    """Other classes, and classifiers without probabilities, cannot be packed in any kind."""
    pipeline = make_pipeline(TfidfVectorizer(), model)
    pipeline.fit(sample.texts, [labels[label] for label in sample.labels])
    path = tmp_path / "x.joblib"
    joblib.dump(pipeline, path)
    with pytest.raises(valence_ml.ModelError, match="two classes"):
        packaging.pack_file(path, tmp_path / "release", name="x", version="1")
    assert not (tmp_path / "release").exists()


@pytest.mark.parametrize(
    ("name", "version"), [("", "1"), ("a b", "1"), ("../x", "1"), ("x", "1/2"), ("x", "1\n")]
)
def test_name_that_is_no_file_name_is_refused(
    name: str, version: str, pipeline: Pipeline, tmp_path: Path
) -> None:
    """Names and versions become parts of paths and URLs."""
    with pytest.raises(valence_ml.ModelError, match="is not a valid name or version"):
        packaging.pack(pipeline, tmp_path / "release", name=name, version=version)


@pytest.fixture
def forest(sample: Examples, tmp_path: Path) -> Path:
    """A release of the joblib kind; its pipeline cannot be compiled."""
    model = RandomForestClassifier(n_estimators=5, random_state=0)
    pipeline = make_pipeline(FunctionTransformer(), TfidfVectorizer(max_features=200), model)
    path = tmp_path / "forest.joblib"
    joblib.dump(pipeline.fit(*sample), path)
    packaging.pack_file(path, tmp_path / "release", name="forest", version="1")
    return tmp_path / "release"


def test_joblib_kind_gives_the_pipeline_s_own_probabilities(forest: Path, sample: Examples) -> None:
    """A pipeline that cannot be compiled runs unchanged; its scores cannot be explained."""
    scorer = valence_ml.load(forest)
    pipeline = joblib.load(forest / "pipeline.joblib")
    expected = pipeline.predict_proba(sample.texts)[:, 1]
    scores = scorer.score(sample.texts)
    assert [score.positive for score in scores] == expected.tolist()
    assert [score.label == "positive" for score in scores] == (expected > 0.5).tolist()
    assert any(score.low_confidence for score in scores)
    assert scorer.explain("good") is None
    assert scorer.score([]) == []
    assert scorer.manifest.kind == "joblib"


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_joblib_file_of_another_hash_is_never_opened(forest: Path, tmp_path: Path) -> None:
    """Code in a swapped file does not run: the hash is compared first."""
    touched = tmp_path / "touched"
    path = forest / "pipeline.joblib"
    joblib.dump(Evil(touched), path)
    path.write_bytes(path.read_bytes().ljust(_size(forest), b"\x00"))
    with pytest.raises(valence_ml.ModelError, match=r"pipeline\.joblib does not match"):
        valence_ml.load(forest)
    assert not touched.exists()


def _size(directory: Path) -> int:
    manifest = json.loads((directory / "manifest.json").read_text())
    return int(manifest["files"]["pipeline.joblib"]["size"])


def _edit(directory: Path, name: str, value: object) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


@pytest.mark.parametrize("recorded", ["1.8.2", "2.0.0", None])
def test_joblib_kind_of_another_scikit_learn_is_never_opened(
    recorded: str | None, forest: Path, tmp_path: Path
) -> None:
    """A pipeline might open in another release and be silently wrong, so it is not opened."""
    touched = tmp_path / "touched"
    path = forest / "pipeline.joblib"
    joblib.dump(Evil(touched), path)
    data = path.read_bytes()
    files = json.loads((forest / "manifest.json").read_text())["files"]
    files["pipeline.joblib"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _edit(forest, "files", files)
    _edit(forest, "libraries", {"scikit-learn": recorded} if recorded else {})
    with pytest.raises(valence_ml.ModelError, match="was packed with scikit-learn"):
        valence_ml.load(forest)
    assert not touched.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04N."])
def test_file_that_is_no_pipeline_is_refused(content: bytes, tmp_path: Path) -> None:
    """A file that does not open, or holds no pipeline, is a ModelError."""
    path = tmp_path / "x.joblib"
    path.write_bytes(content)
    with pytest.raises(valence_ml.ModelError, match=r"does not open|must be fitted|is not a Pipe"):
        packaging.pack_file(path, tmp_path / "release", name="x", version="1")


class BrokenPipeline:
    """A pipeline that fails, or returns nonsense."""

    classes_ = (0, 1)

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def predict_proba(self, _texts: list[str]) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [OSError("secret"), [], [[float("nan")] * 2], [[1.5, -0.5]], 3])
def test_pipeline_that_fails_gives_a_model_error_without_the_text(
    answer: object, scorer: valence_ml.Scorer
) -> None:
    """Whatever a user's pipeline raises, the caller gets a ModelError without the text."""
    broken = PipelineScorer(scorer.manifest, BrokenPipeline(answer))
    with pytest.raises(valence_ml.ModelError) as caught:
        broken.score(["secret"])
    assert "secret" not in str(caught.value)
