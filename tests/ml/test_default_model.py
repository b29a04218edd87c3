"""The release that ships with the package: complete, small, honest, and cheap to load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import valence_ml
from support.required import data_file
from valence_ml import data, evaluation

DIRECTORY = valence_ml.DEFAULT_MODEL


def test_release_is_at_most_two_megabytes() -> None:
    """Git, wheels and images contain it, so it stays small."""
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) <= 2_000_000


def test_folder_is_named_after_the_model(scorer: valence_ml.Scorer) -> None:
    """The folder is named after model and version."""
    assert DIRECTORY.name == f"{scorer.name}-{scorer.version}"
    assert scorer.name == "valence-default"


def test_card_mentions_every_source_licence_and_figure(scorer: valence_ml.Scorer) -> None:
    """The card repeats the sources and the accuracy of the manifest."""
    card = (DIRECTORY / "MODEL_CARD.md").read_text(encoding="utf-8")
    for source in scorer.manifest.sources:
        row = f"| {source.file} | {source.rows} | {source.authors} | {source.licence} |"
        assert row in card
    for metric in scorer.manifest.metrics:
        assert f"| {metric.file} | {metric.rows} | {metric.accuracy:.4f} |" in card
    assert {"sst2.dev", "cad_revised.dev"} <= {each.file for each in scorer.manifest.metrics}


def test_card_is_what_the_code_writes(scorer: valence_ml.Scorer) -> None:
    """The text of the card changes with the code, and says where the baseline is better."""
    from valence_ml import card
    from valence_ml.training import DESCRIPTION

    everyday = data.read(data.EVERYDAY)
    positives = [score.positive for score in scorer.score(everyday.texts)]
    expected = card.write(
        scorer.manifest, DESCRIPTION, evaluation.misclassified(everyday, positives)
    )
    assert expected == (DIRECTORY / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "On sst2.dev the naive Bayes baseline is more accurate than this model." in expected


def test_no_source_forbids_its_use(scorer: valence_ml.Scorer) -> None:
    """Non-commercial and Twitter files are excluded; each licence is stated or 'not stated'."""
    names = {source.file.split(".")[0] for source in scorer.manifest.sources}
    assert names.isdisjoint(data.EXCLUDED)
    assert names <= set(data.ORIGINS)
    assert not any(".dev" in source.file for source in scorer.manifest.sources)
    assert all(source.licence for source in scorer.manifest.sources)


def test_golden_predictions_hold_everyday_and_odd_texts(scorer: valence_ml.Scorer) -> None:
    """About twenty texts, an empty and a foreign one among them, are reproduced."""
    golden = {each.text: each.positive for each in scorer.manifest.golden}
    assert len(golden) >= 20
    assert "" in golden
    assert not all(text.isascii() for text in golden)
    answers = scorer.score(list(golden))
    assert [each.positive for each in answers] == pytest.approx(list(golden.values()), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love this product!", "positive"),
        ("This is terrible, very disappointed.", "negative"),
        ("not good at all", "negative"),
        ("It doesn't work.", "negative"),
        ("It doesn\u2019t work.", "negative"),
        ("I couldn't be happier.", "positive"),
        ("Great value for money.", "positive"),
        ("I would not recommend this to anyone.", "negative"),
    ],
)
def test_everyday_sentence_comes_right(text: str, label: str, scorer: valence_ml.Scorer) -> None:
    """The sentences that newcomers try first are scored correctly and with confidence."""
    (score,) = scorer.score([text])
    assert score.label == label
    assert not score.low_confidence


def _assert_metric_is_reproduced(name: str, path: Path, scorer: valence_ml.Scorer) -> None:
    stated = next(metric for metric in scorer.manifest.metrics if metric.file == name)
    measured = evaluation.evaluate(scorer, name, data.read(path))
    assert (stated.rows, stated.accuracy, stated.log_loss) == (
        measured.rows,
        measured.accuracy,
        measured.log_loss,
    )


def test_everyday_accuracy_is_what_the_manifest_says(scorer: valence_ml.Scorer) -> None:
    """The compiled scorer reproduces the stated accuracy on the package's own sentences."""
    _assert_metric_is_reproduced("everyday", data.EVERYDAY, scorer)


@pytest.mark.parametrize("name", ["sst2.dev", "cad_revised.dev"])
def test_accuracy_is_what_the_manifest_says(name: str, scorer: valence_ml.Scorer) -> None:
    """So it does on the development files, which the repository does not contain."""
    _assert_metric_is_reproduced(name, data_file(f"{name}.tsv.gz"), scorer)


def test_loading_imports_no_scikit_learn() -> None:
    """Scoring imports neither scikit-learn, SciPy, joblib nor NumPy."""
    program = (
        "import json, sys, valence_ml\n"
        "scorer = valence_ml.load(valence_ml.DEFAULT_MODEL)\n"
        "scorer.explain(scorer.score(['good'])[0].label)\n"
        "print(json.dumps([name.split('.')[0] for name in sys.modules]))"
    )
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    heavy = {"sklearn", "scipy", "joblib", "numpy", "rich", "typer"}
    assert heavy.isdisjoint(json.loads(output))
