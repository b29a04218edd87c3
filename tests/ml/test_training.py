"""Training is reproducible and leaves nothing incomplete."""

from pathlib import Path

import pytest

import valence_ml
from valence_ml import training
from valence_ml.manifest import Manifest


def train(directory: Path, out: Path, *, baseline: bool = False) -> Manifest:
    recipe = training.Recipe(max_terms=1_000)
    return training.train_release(
        directory, out, name="small", version="1", baseline=baseline, recipe=recipe
    )


def test_training_twice_gives_the_same_bytes(data_directory: Path, tmp_path: Path) -> None:
    """The same data and recipe make the same release, byte for byte."""
    for name in ("one", "two"):
        train(data_directory, tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["MODEL_CARD.md", "manifest.json", "weights.npz"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_manifest_says_how_the_model_was_trained(data_directory: Path, tmp_path: Path) -> None:
    """It has sources, seed, metrics and baseline; what is unknown is 'not stated'."""
    manifest = train(data_directory, tmp_path / "out")
    (source,) = manifest.sources
    assert (source.file, source.rows, source.licence) == ("mine.train.tsv", 400, "not stated")
    assert manifest.training is not None
    assert manifest.training.seed == training.SEED
    metrics = {metric.file: metric for metric in manifest.metrics}
    assert set(metrics) == {"mine.dev", "everyday"}
    assert metrics["mine.dev"].accuracy > 0.9
    assert metrics["mine.dev"].baseline_accuracy is not None


def test_number_of_terms_is_limited(data_directory: Path, tmp_path: Path) -> None:
    """The recipe's limit holds for the model and the baseline."""
    from valence_ml.compiling import compile_pipeline

    recipe = training.Recipe(max_terms=300)
    corpus = training.load_corpus(data_directory)
    for pipeline in (training.train(corpus, recipe), training.train_baseline(corpus, recipe)):
        assert len(compile_pipeline(pipeline)[1].terms) == 300


def test_baseline_is_naive_bayes(data_directory: Path, tmp_path: Path) -> None:
    """The baseline is packed and loaded like any model."""
    train(data_directory, tmp_path / "out", baseline=True)
    scorer = valence_ml.load(tmp_path / "out")
    assert "naive Bayes" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert scorer.manifest.metrics[0].baseline_accuracy is None
    assert scorer.score(["great, I love it"])[0].label == "positive"


def test_small_files_weigh_more(data_directory: Path) -> None:
    """The rows of a small file have the recipe's weight."""
    corpus = training.load_corpus(data_directory)
    assert set(corpus.weights(training.Recipe(small_file_boost=3.0))) == {3.0}
    assert set(corpus.weights(training.Recipe(small_file_rows=10))) == {1.0}


def test_folder_without_data_is_refused(tmp_path: Path) -> None:
    """A folder without training files is a ModelError."""
    with pytest.raises(valence_ml.ModelError, match="name another --data"):
        train(tmp_path, tmp_path / "out")


def test_one_label_is_refused(tmp_path: Path) -> None:
    """A classifier needs both classes."""
    (tmp_path / "x.train.tsv").write_text("1\tgood\n1\tfine\n")
    with pytest.raises(valence_ml.ModelError, match="rows of both labels"):
        train(tmp_path, tmp_path / "out")


def test_words_too_rare_are_refused(tmp_path: Path) -> None:
    """Texts without a common word are a ModelError, not a traceback."""
    (tmp_path / "x.train.tsv").write_text("1\tgood\n0\tbad\n1\tfine\n0\tpoor\n")
    with pytest.raises(valence_ml.ModelError, match="too few"):
        train(tmp_path, tmp_path / "out")


def test_taken_folder_is_refused_before_the_work(data_directory: Path, tmp_path: Path) -> None:
    """An output folder that is not empty is an error before the training, not after."""
    with pytest.raises(valence_ml.ModelError, match="is not an empty folder"):
        train(data_directory, data_directory)
