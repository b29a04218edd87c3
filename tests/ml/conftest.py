"""The sample and pipelines trained on it, for all tests of `valence_ml`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

import valence_ml
from valence_ml import data, packaging
from valence_ml.text import TOKEN_PATTERN, normalise

SAMPLE = Path(__file__).parents[1] / "data" / "sample.tsv"


@pytest.fixture(scope="session")
def sample() -> data.Examples:
    return data.read(SAMPLE)


@pytest.fixture(scope="session")
def scorer() -> valence_ml.Scorer:
    return valence_ml.load(valence_ml.DEFAULT_MODEL)


@pytest.fixture(scope="session")
def pipeline(sample: data.Examples) -> Pipeline:
    """A pipeline like the default model's, trained on the sample."""
    vectorizer = TfidfVectorizer(
        preprocessor=normalise, token_pattern=TOKEN_PATTERN, ngram_range=(1, 2), sublinear_tf=True
    )
    return make_pipeline(vectorizer, LogisticRegression()).fit(*sample)


@pytest.fixture
def pack(pipeline: Pipeline, tmp_path: Path) -> Callable[[], Path]:
    """Packs the small pipeline; returns the folder of the release."""

    def packed() -> Path:
        directory = tmp_path / "release"
        packaging.pack(pipeline, directory, name="small", version="1.2.3")
        return directory

    return packed


@pytest.fixture
def data_directory(tmp_path: Path) -> Path:
    """A folder to train on, with the sample as a file of unknown origin."""
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "mine.train.tsv").write_bytes(SAMPLE.read_bytes())
    (directory / "mine.dev.tsv").write_bytes(SAMPLE.read_bytes())
    return directory
