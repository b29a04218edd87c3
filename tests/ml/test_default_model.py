"""The release that the package carries: whole, small, honest, and cheap to load."""

import json
import subprocess
import sys

import pytest

import valence_ml
from support.required import data_file
from valence_ml import data

DIRECTORY = valence_ml.DEFAULT_MODEL


def test_release_is_at_most_two_megabytes() -> None:
    """Git, wheels and images carry it, so it stays small."""
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) <= 2_000_000


def test_folder_is_named_after_the_model(scorer: valence_ml.Scorer) -> None:
    """A folder says which model and version is in it."""
    assert DIRECTORY.name == f"{scorer.name}-{scorer.version}"
    assert scorer.name == "valence-default"


def test_card_mentions_every_source_licence_and_figure(scorer: valence_ml.Scorer) -> None:
    """What the manifest says of sources and accuracy, the card says too."""
    card = (DIRECTORY / "MODEL_CARD.md").read_text(encoding="utf-8")
    for source in scorer.manifest.sources:
        row = f"| {source.file} | {source.rows} | {source.authors} | {source.licence} |"
        assert row in card
    for metric in scorer.manifest.metrics:
        assert f"| {metric.file} | {metric.rows} | {metric.accuracy:.4f} |" in card
    assert {"sst2.dev", "cad_revised.dev"} <= {each.file for each in scorer.manifest.metrics}


def test_no_source_forbids_its_use(scorer: valence_ml.Scorer) -> None:
    """Non-commercial and Twitter files were left out; each licence is stated or 'not stated'."""
    names = {source.file.split(".")[0] for source in scorer.manifest.sources}
    assert names.isdisjoint(data.EXCLUDED)
    assert names <= set(data.ORIGINS)
    assert not any(".dev" in source.file for source in scorer.manifest.sources)
    assert all(source.licence for source in scorer.manifest.sources)


def test_golden_predictions_hold_everyday_and_odd_texts(scorer: valence_ml.Scorer) -> None:
    """About twenty texts, an empty one and a foreign one among them, come out the same."""
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
    """What anyone tries first is answered rightly, and not by a hair."""
    (score,) = scorer.score([text])
    assert score.label == label
    assert not score.low_confidence


@pytest.mark.parametrize("name", ["sst2.dev", "cad_revised.dev"])
def test_accuracy_is_what_the_manifest_says(name: str, scorer: valence_ml.Scorer) -> None:
    """The stated accuracy on a development file is measured again, by the compiled scorer."""
    path = data_file(f"{name}.tsv.gz")
    stated = next(metric for metric in scorer.manifest.metrics if metric.file == name)
    from valence_ml.evaluation import evaluate

    assert evaluate(scorer, name, data.read(path)).accuracy == stated.accuracy


def test_loading_imports_no_scikit_learn() -> None:
    """Start-up and memory: scoring needs neither scikit-learn, SciPy, joblib nor NumPy."""
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
