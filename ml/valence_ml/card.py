"""The model card: what stands in the manifest, and what the model cannot do, in words."""

from collections.abc import Iterator, Sequence

from valence_ml.manifest import Manifest

LIMITS = """\
It has two classes. There is no neutral one: a neutral text gets a label all the same, usually with
a confidence near a half. It reads words and short runs of words, not grammar: irony, comparisons,
"not" far from its word and "would have been good if" fool it. What was not in its training says
nothing to it: emoji, other languages, other subjects; there, expect less than the figures here. It
was not examined for bias towards groups of people: do not decide about a person with it."""


def write(manifest: Manifest, description: str, mistakes: Sequence[str] = ()) -> str:
    """Write the card in Markdown; `mistakes` are everyday sentences that the model gets wrong."""
    parts = [
        f"# {manifest.name} {manifest.version}",
        description,
        _facts(manifest),
        "## Limits",
        LIMITS,
        "## Accuracy",
        "\n".join(_metrics(manifest)),
    ]
    if mistakes:
        parts += ["Everyday sentences that it gets wrong:", _bullets(mistakes)]
    parts += ["## Golden predictions", "\n".join(_golden(manifest))]
    parts += ["## Sources", "\n".join(_sources(manifest))]
    if manifest.training is not None:
        parts += ["## Training", f"    {manifest.training.command}"]
        parts += [f"Seed {manifest.training.seed}; {_libraries(manifest)}."]
    return "\n\n".join(parts) + "\n"


def _facts(manifest: Manifest) -> str:
    return (
        f"Labels: {' and '.join(manifest.labels)}. Kind: {manifest.kind}. A score is marked "
        f"`low_confidence` under {manifest.low_confidence_below}, or when the text has no term "
        "that the model knows (linear kind)."
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


def _golden(manifest: Manifest) -> Iterator[str]:
    yield "| text | probability of 'positive' |"
    yield "| --- | --- |"
    for golden in manifest.golden:
        text = golden.text if len(golden.text) <= 60 else golden.text[:60] + "..."
        shown = ascii(text).replace("|", "\\|")
        yield f"| `{shown}` | {golden.positive:.4f} |"


def _sources(manifest: Manifest) -> Iterator[str]:
    if not manifest.sources:
        yield "Not stated."
        return
    yield "Licences are given as their makers state them; 'not stated' means just that."
    yield ""
    yield "| file | rows | authors | licence |"
    yield "| --- | --- | --- | --- |"
    for source in manifest.sources:
        yield f"| {source.file} | {source.rows} | {source.authors} | {source.licence} |"


def _libraries(manifest: Manifest) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
