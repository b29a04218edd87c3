"""The model card: the manifest and the limits of the model in Markdown."""

from collections.abc import Iterator, Sequence

from valence_ml.manifest import Manifest

LIMITS = """\
The model has two classes and no neutral one: a neutral text gets a label too, usually with a
confidence near 0.5. It reads words and short sequences of words, not grammar: irony, comparisons,
a distant "not" and "would have been good if" mislead it. It ignores what its training data did not
contain: emoji, other languages, other subjects. Expect lower accuracy there than the figures below.
It was not examined for bias towards groups of people: do not use it to decide about a person."""

MEASURE = """\
To measure again: `python -m valence_ml evaluate --model RELEASE --data FILE`. The file `everyday`
is `valence_ml/everyday.tsv`; the others are public data sets that Valence does not contain."""


def write(manifest: Manifest, description: str, mistakes: Sequence[str] = ()) -> str:
    """Return the card as Markdown; `mistakes` are misclassified everyday sentences."""
    parts = [
        f"# {manifest.name} {manifest.version}",
        description,
        _facts(manifest),
        "## Limits",
        LIMITS,
        "## Accuracy",
        "\n".join(_metrics(manifest)),
    ]
    if manifest.metrics:
        parts += [MEASURE, *_worse_than_baseline(manifest)]
    if mistakes:
        parts += ["Everyday sentences that the model misclassifies:", _bullets(mistakes)]
    parts += ["## Golden predictions", "\n".join(_golden(manifest))]
    parts += ["## Sources", "\n".join(_sources(manifest))]
    if manifest.training is not None:
        parts += ["## Training", f"    {manifest.training.command}"]
        parts += [f"Seed {manifest.training.seed}; {_libraries(manifest)}."]
    return "\n\n".join(parts) + "\n"


def _facts(manifest: Manifest) -> str:
    return (
        f"Labels: {' and '.join(manifest.labels)}. Kind: {manifest.kind}. A score is marked "
        f"`low_confidence` below a confidence of {manifest.low_confidence_below}, or when the text "
        "contains no term that the model knows (linear kind)."
    )


def _metrics(manifest: Manifest) -> Iterator[str]:
    if not manifest.metrics:
        yield "Not stated."
        return
    yield "| file | rows | accuracy | log loss | accuracy of the naive Bayes baseline |"
    yield "| --- | --- | --- | --- | --- |"
    for metric in manifest.metrics:
        baseline = metric.baseline_accuracy
        yield (
            f"| {metric.file} | {metric.rows} | {metric.accuracy:.4f} | {metric.log_loss:.4f} "
            f"| {'not measured' if baseline is None else f'{baseline:.4f}'} |"
        )


def _worse_than_baseline(manifest: Manifest) -> list[str]:
    return [
        f"On {metric.file} the naive Bayes baseline is more accurate than this model."
        for metric in manifest.metrics
        if metric.baseline_accuracy is not None and metric.baseline_accuracy > metric.accuracy
    ]


def _golden(manifest: Manifest) -> Iterator[str]:
    yield "| text | probability of 'positive' |"
    yield "| --- | --- |"
    for golden in manifest.golden:
        text = golden.text if len(golden.text) <= 60 else golden.text[:60] + "..."
        literal = ascii(text).replace("|", "\\|")
        yield f"| `{literal}` | {golden.positive:.4f} |"


def _sources(manifest: Manifest) -> Iterator[str]:
    if not manifest.sources:
        yield "Not stated."
        return
    yield "Licences are as the authors state them; 'not stated' means that they state none."
    yield ""
    yield "| file | rows | authors | licence |"
    yield "| --- | --- | --- | --- |"
    for source in manifest.sources:
        yield f"| {source.file} | {source.rows} | {source.authors} | {source.licence} |"


def _libraries(manifest: Manifest) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
