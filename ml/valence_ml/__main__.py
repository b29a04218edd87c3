"""Command line: `python -m valence_ml train|evaluate|pack|verify`."""

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

Out = Annotated[Path, typer.Option(help="New folder for the release.")]
Name = Annotated[str, typer.Option(help="Name of the model.")]
Version = Annotated[str, typer.Option(help="Version of the model.")]


@app.command()
def train(
    directory: Annotated[
        Path,
        typer.Option("--data", help="Folder with *.train.tsv and *.dev.tsv, optionally gzipped."),
    ],
    out: Out,
    name: Name = "valence-default",
    version: Version = "1.0.0",
    *,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Train the naive Bayes baseline instead.")
    ] = False,
) -> None:
    """Train on a folder of labelled texts (`label<TAB>text`, label 0 or 1) and pack a release."""
    # Imported here because `evaluate` and `verify` work without scikit-learn.
    from valence_ml.training import train_release  # noqa: PLC0415

    manifest = train_release(directory, out, name=name, version=version, baseline=baseline)
    _print_metrics(manifest.metrics)
    typer.echo(f"Wrote {name} {version} to {out}")


@app.command()
def evaluate(
    files: Annotated[list[Path], typer.Option("--data", help="File of `label<TAB>text` lines.")],
    # `--data` takes one file; the shell puts the others of `--data *.dev.tsv.gz` here.
    more_files: Annotated[
        list[Path] | None, typer.Argument(help="More files.", show_default=False)
    ] = None,
    model: Annotated[Path, typer.Option(help="Folder of the release.")] = DEFAULT_MODEL,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a model on labelled files (label 0 or 1, optionally gzipped)."""
    scorer = load(model)
    metrics = [
        evaluation.evaluate(scorer, data.stem(path), data.read(path))
        for path in [*files, *(more_files or [])]
    ]
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(metrics)).decode())
    else:
        _print_metrics(metrics)


@app.command()
def pack(
    pipeline: Annotated[Path, typer.Argument(help="Joblib file. OPENING IT EXECUTES ITS CODE.")],
    out: Out,
    name: Name,
    version: Version,
) -> None:
    """Pack a fitted scikit-learn text pipeline: linear if it can be compiled, joblib otherwise.

    Opening a joblib file executes the code in it: pack only files from people you trust.
    """
    # Imported here because `evaluate` and `verify` work without scikit-learn.
    from valence_ml import packaging  # noqa: PLC0415

    manifest, reason = packaging.pack_file(pipeline, out, name=name, version=version)
    if reason:
        typer.echo(reason, err=True)
    typer.echo(f"Wrote {name} {version} ({manifest.kind} kind) to {out}")


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="Folder of the release.")],
) -> None:
    """Check every hash and golden prediction of a release (the joblib kind executes its code)."""
    manifest = load(directory).manifest
    typer.echo(
        f"{manifest.name} {manifest.version}: {len(manifest.files)} files match, "
        f"{len(manifest.golden)} golden predictions are reproduced"
    )


def main() -> None:
    """Run the command line; print an error that the user can fix as one sentence, and exit 1."""
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
