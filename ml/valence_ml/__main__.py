"""The command line: `python -m valence_ml train|evaluate|pack|verify`."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from valence_ml import data, evaluation
from valence_ml.loading import DEFAULT_MODEL, load
from valence_ml.manifest import Metric, ModelError

app = typer.Typer(
    help="Train, evaluate, pack and verify sentiment models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option(help="A new folder for the release.")]
Name = Annotated[str, typer.Option(help="The model's name.")]
Version = Annotated[str, typer.Option(help="The model's version.")]


@app.command()
def train(
    directory: Annotated[
        Path, typer.Option("--data", help="A folder with *.train.tsv and *.dev.tsv, .gz or not.")
    ],
    out: Out,
    name: Name = "valence-default",
    version: Version = "1.0.0",
    *,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Pack the naive Bayes baseline instead.")
    ] = False,
) -> None:
    """Train on a folder of labelled texts (`label<TAB>text`, 0 or 1) and pack a release."""
    # Imported here: it needs scikit-learn, which `evaluate` and `verify` do not.
    from valence_ml.training import train_release  # noqa: PLC0415

    manifest = train_release(directory, out, name=name, version=version, baseline=baseline)
    _print_metrics(manifest.metrics)
    typer.echo(f"{name} {version} is in {out}")


@app.command()
def evaluate(
    files: Annotated[list[Path], typer.Option("--data", help="A file of `label<TAB>text`.")],
    # `--data` takes one file; those after it land here, so that `--data *.dev.tsv.gz` works.
    more: Annotated[
        list[Path] | None, typer.Argument(help="More files.", show_default=False)
    ] = None,
    model: Annotated[Path, typer.Option(help="The folder of a release.")] = DEFAULT_MODEL,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a model on labelled files (0 or 1, .gz or not)."""
    scorer = load(model)
    metrics = [
        evaluation.evaluate(scorer, data.stem(path), data.read(path))
        for path in [*files, *(more or [])]
    ]
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(metrics)).decode())
    else:
        _print_metrics(metrics)


@app.command()
def pack(
    pipeline: Annotated[Path, typer.Argument(help="A joblib file. OPENING IT EXECUTES ITS CODE.")],
    out: Out,
    name: Name,
    version: Version,
) -> None:
    """Pack a fitted scikit-learn text pipeline: linear if it can be compiled, else joblib.

    Opening a joblib file executes what is in it: give only files of people you trust.
    """
    # Imported here: it needs scikit-learn, which `evaluate` and `verify` do not.
    from valence_ml import packaging  # noqa: PLC0415

    manifest, reason = packaging.pack_file(pipeline, out, name=name, version=version)
    if reason:
        typer.echo(reason, err=True)
    typer.echo(f"{name} {version} is in {out}, of the {manifest.kind} kind")


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="The folder of a release.")],
) -> None:
    """Check every hash and golden prediction of a release (the joblib kind executes its code)."""
    manifest = load(directory).manifest
    typer.echo(
        f"{manifest.name} {manifest.version}: {len(manifest.files)} files match, "
        f"{len(manifest.golden)} golden predictions come out the same"
    )


def main() -> None:
    """Run the command line; whatever is the user's to mend is one sentence on stderr."""
    try:
        app()
    except ModelError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        typer.echo(f"{error.name} is not installed: install 'valence-ml[train]'", err=True)
        sys.exit(1)


def _print_metrics(metrics: list[Metric]) -> None:
    for metric in metrics:
        line = f"{metric.file}: accuracy {metric.accuracy:.4f} on {metric.rows} rows"
        if metric.baseline_accuracy is not None:
            line += f" (naive Bayes {metric.baseline_accuracy:.4f})"
        typer.echo(line)


if __name__ == "__main__":
    main()
