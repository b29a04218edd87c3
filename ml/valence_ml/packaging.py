"""From a scikit-learn pipeline to a release folder that has been loaded and proven."""

import importlib.metadata
import platform
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from valence_ml import card, release
from valence_ml.compiling import CannotCompileError, compile_pipeline
from valence_ml.linear import WEIGHTS, LinearScorer
from valence_ml.loading import difference, load
from valence_ml.manifest import (
    FORMAT,
    Golden,
    Manifest,
    Metric,
    ModelError,
    Source,
    Training,
)
from valence_ml.pipeline import PIPELINE, positive_column, unpickle

LOW_CONFIDENCE_BELOW = 0.55
"""Under this confidence a score is marked low; of such development texts 60 % were right."""

GOLDEN_TEXTS = (
    "I love this product!",
    "This is terrible, very disappointed.",
    "Not good at all.",
    "Not bad.",
    "It doesn't work and nobody answers my mails.",
    "It doesn\u2019t work and nobody answers my mails.",
    "The service was excellent and the staff were friendly.",
    "What a waste of time and money.",
    "The plot is thin, but the acting is wonderful.",
    "I WOULD NOT RECOMMEND THIS TO ANYONE",
    "good good good good bad",
    "ok",
    "",
    "   \t\n ",
    "\U0001f600\U0001f621\u2764\ufe0f",
    "\u0130stanbul \u00e7ok g\u00fczel, stra\u00dfe \ufb01ne",
    "\u3053\u306e\u6620\u753b\u306f\u7d20\u6674\u3089\u3057\u3044",
    "great\x00movie",
    "x" * 300,
    "bad " * 40 + "good " * 41,
    "<b>Great</b> value & 5/5 -- would buy again; it's 'perfect'",
)
"""What every release must reproduce: everyday texts and odd ones."""


class Provenance(msgspec.Struct, frozen=True):
    """What is known about how a pipeline came to be; nothing, for one that a user brings."""

    sources: tuple[Source, ...] = ()
    metrics: tuple[Metric, ...] = ()
    training: Training | None = None
    description: str = "A scikit-learn pipeline that was brought ready; its training is not known."
    mistakes: tuple[str, ...] = ()


def pack(
    pipeline: Any, directory: Path, *, name: str, version: str, provenance: Provenance | None = None
) -> Manifest:
    """Compile a fitted pipeline, write its release into a new or empty folder, and load it once.

    The golden predictions are scikit-learn's own, so loading proves the compiled scorer. ModelError
    when the pipeline cannot be compiled exactly; then the folder is left as it was.
    """
    release.reserve(directory, name=name, version=version)
    provenance = provenance or Provenance()
    settings, weights = compile_pipeline(pipeline)
    manifest = msgspec.structs.replace(_draft(pipeline, name, version, provenance), linear=settings)
    if difference(LinearScorer(manifest, weights)) is not None:
        raise CannotCompileError("compiled, it gives other probabilities")
    files = {WEIGHTS: weights.pack()}
    return _place(manifest, files, directory, provenance)


def pack_file(
    path: Path, directory: Path, *, name: str, version: str
) -> tuple[Manifest, CannotCompileError | None]:
    """Pack a user's joblib file, WHICH EXECUTES WHAT IS IN IT.

    What cannot be compiled is packed as it is, of the `joblib` kind, and the reason given.
    """
    release.reserve(directory, name=name, version=version)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    pipeline = unpickle(data)
    try:
        return pack(pipeline, directory, name=name, version=version), None
    except CannotCompileError as reason:
        manifest = msgspec.structs.replace(
            _draft(pipeline, name, version, Provenance()), kind="joblib"
        )
        return _place(manifest, {PIPELINE: data}, directory, Provenance()), reason


def _draft(pipeline: Any, name: str, version: str, provenance: Provenance) -> Manifest:
    """Say all that does not depend on the kind."""
    column = positive_column(pipeline)
    try:
        golden = [
            Golden(text=text, positive=float(row[column]))
            for text, row in zip(
                GOLDEN_TEXTS, pipeline.predict_proba(list(GOLDEN_TEXTS)), strict=True
            )
        ]
    except Exception as error:  # noqa: BLE001 - a pipeline of the user's raises anything
        raise ModelError(
            f"the pipeline fails on odd texts ({type(error).__name__}: {error}): make it take any"
        ) from None
    return Manifest(
        format=FORMAT,
        name=name,
        version=version,
        kind="linear",
        labels=("negative", "positive"),
        low_confidence_below=LOW_CONFIDENCE_BELOW,
        files={},
        libraries=_libraries(),
        sources=list(provenance.sources),
        metrics=list(provenance.metrics),
        golden=golden,
        training=provenance.training,
    )


def _place(
    manifest: Manifest, files: dict[str, bytes], directory: Path, provenance: Provenance
) -> Manifest:
    """Write next to the target, prove, then move: a folder of that name is always whole."""
    text = card.write(manifest, provenance.description, provenance.mistakes)
    files = files | {release.CARD: text.encode()}
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".packing-") as temporary:
            draft = Path(temporary) / "release"
            manifest = release.write(draft, manifest, files)
            load(draft)
            if directory.exists():
                directory.rmdir()
            draft.rename(directory)
    except OSError as error:
        raise ModelError(
            f"{error.filename or directory} cannot be written: {error.strerror}"
        ) from None
    return manifest


def _libraries() -> dict[str, str]:
    names = ("numpy", "scikit-learn", "scipy", "valence-ml")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version()} | versions
