"""The command line prints results on stdout and errors as one sentence on stderr."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import joblib
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline, make_pipeline

import valence_ml
from valence_ml import __main__ as command
from valence_ml.data import Examples

Run = Callable[..., tuple[int, str, str]]
SAMPLE = Path(__file__).parents[1] / "data" / "sample.tsv"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process; returns its exit code, stdout and stderr."""

    def ran(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["valence_ml", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            command.main()
        output = capfd.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return ran


def test_module_runs_and_lists_its_commands() -> None:
    """`python -m valence_ml` is the entry point."""
    arguments = [sys.executable, "-m", "valence_ml", "--help"]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    assert all(name in output for name in ("train", "evaluate", "pack", "verify"))


def test_verify_says_what_was_verified(run: Run) -> None:
    """A complete release exits 0."""
    code, out, err = run("verify", valence_ml.DEFAULT_MODEL)
    assert (code, err) == (0, "")
    assert out.startswith("valence-default ")


def test_verify_refuses_a_broken_release(run: Run, pack: Callable[[], Path]) -> None:
    """A broken release exits 1 with one sentence."""
    directory = pack()
    (directory / "weights.npz").write_bytes(b"")
    code, out, err = run("verify", directory)
    assert (code, out) == (1, "")
    assert err.startswith(f"{directory}/weights.npz is truncated")
    assert err.count("\n") == 1


def test_train_then_verify_then_evaluate(run: Run, data_directory: Path, tmp_path: Path) -> None:
    """The commands fit together; without a terminal there is no progress bar."""
    out = tmp_path / "out"
    code, text, err = run("train", "--data", data_directory, "--out", out, "--version", "2.0")
    assert (code, err) == (0, "")
    assert "mine.dev: accuracy" in text
    assert run("verify", out)[0] == 0
    code, text, err = run("evaluate", "--model", out, "--data", SAMPLE, SAMPLE, "--json")
    assert (code, err) == (0, "")
    first, second = json.loads(text)
    assert first == second
    assert first["rows"] == 400
    assert first["accuracy"] > 0.9


def test_evaluate_prints_accuracy_by_file(run: Run) -> None:
    """The default model is measured when none is named."""
    code, out, err = run("evaluate", "--data", SAMPLE)
    assert (code, err) == (0, "")
    assert out.startswith("sample: accuracy 0.")


def test_pack_compiles_what_it_can(run: Run, pipeline: Pipeline, tmp_path: Path) -> None:
    """A linear pipeline becomes the linear kind."""
    path = tmp_path / "mine.joblib"
    joblib.dump(pipeline, path)
    code, out, err = run(
        "pack", path, "--out", tmp_path / "out", "--name", "mine", "--version", "1"
    )
    assert (code, err) == (0, "")
    assert "(linear kind)" in out
    assert valence_ml.load(tmp_path / "out").name == "mine"


def test_pack_says_why_it_cannot_compile(run: Run, sample: Examples, tmp_path: Path) -> None:
    """Any other pipeline becomes the joblib kind, and the reason is printed."""
    path = tmp_path / "mine.joblib"
    forest = RandomForestClassifier(n_estimators=3, random_state=0)
    joblib.dump(make_pipeline(TfidfVectorizer(max_features=100), forest).fit(*sample), path)
    code, out, err = run(
        "pack", path, "--out", tmp_path / "out", "--name", "mine", "--version", "1"
    )
    assert code == 0
    assert "(joblib kind)" in out
    assert "RandomForestClassifier" in err
    assert run("verify", tmp_path / "out")[0] == 0


def test_every_error_is_a_sentence(run: Run, tmp_path: Path) -> None:
    """A missing or existing path: exit 1, one line on stderr, nothing on stdout."""
    missing, taken = tmp_path / "missing", SAMPLE.parent
    named = ("--name", "x", "--version", "1")
    for arguments in (
        ("verify", missing),
        ("evaluate", "--data", missing),
        ("evaluate", "--model", missing, "--data", SAMPLE),
        ("train", "--data", missing, "--out", tmp_path / "out"),
        ("train", "--data", missing, "--out", taken),
        ("train", "--data", missing, "--out", tmp_path / "out", "--name", "a/b"),
        ("pack", missing, "--out", tmp_path / "out", *named),
        ("pack", SAMPLE, "--out", tmp_path / "out", *named),
    ):
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (1, "", 1), (arguments, err)


def test_usage_errors_are_not_tracebacks(run: Run) -> None:
    """A missing option is exit 2 with the usage."""
    code, out, err = run("train")
    assert (code, out) == (2, "")
    assert "--data" in err
    assert "Traceback" not in err


def test_missing_scikit_learn_is_a_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the extra, `train` names the extra that it needs."""
    monkeypatch.delitem(sys.modules, "valence_ml.training", raising=False)
    monkeypatch.delattr(valence_ml, "training", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    code, _, err = run("train", "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 1
    assert "valence-ml[train]" in err
