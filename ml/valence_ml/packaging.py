"""Pack a scikit-learn pipeline into a release folder, and verify it."""

import importlib.metadata
import platform
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from valence_ml import card, release
from valence_ml.compiling import CannotCompileError, compile_pipeline
from valence_ml.linear import WEIGHTS, LinearScorer
from valence_ml.loading import golden_mismatch, load
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
"""A score with a lower confidence is marked `low_confidence`."""

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
"""Texts whose predictions every release must reproduce: everyday texts and edge cases."""


class Provenance(msgspec.Struct, frozen=True):
    """How a pipeline was trained; the defaults are for a pipeline that a user supplies."""

    sources: tuple[Source, ...] = ()
    metrics: tuple[Metric, ...] = ()
    training: Training | None = None
    description: str = "A user-supplied scikit-learn pipeline; how it was trained is not known."
    mistakes: tuple[str, ...] = ()


def pack(
    pipeline: Any, directory: Path, *, name: str, version: str, provenance: Provenance | None = None
) -> Manifest:
    """Compile a fitted pipeline, write its release into a new or empty folder, and load it once.

    The golden predictions come from scikit-learn, so loading checks the compiled scorer against it.
    Raise ModelError, and leave the folder unchanged, when the pipeline cannot be compiled exactly.
    """
    release.check_target(directory, name=name, version=version)
    provenance = provenance or Provenance()
    settings, weights = compile_pipeline(pipeline)
    manifest = msgspec.structs.replace(
        _draft_manifest(pipeline, name, version, provenance), linear=settings
    )
    if golden_mismatch(LinearScorer(manifest, weights)) is not None:
        raise CannotCompileError("the compiled model gives other probabilities")
    files = {WEIGHTS: weights.pack()}
    return _publish(manifest, files, directory, provenance)


def pack_file(
    path: Path, directory: Path, *, name: str, version: str
) -> tuple[Manifest, CannotCompileError | None]:
    """Pack a user's joblib file, WHICH EXECUTES THE CODE IN IT.

    A pipeline that cannot be compiled is packed unchanged, as the `joblib` kind. Return the
    manifest, and the reason in that case.
    """
    release.check_target(directory, name=name, version=version)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    pipeline = unpickle(data)
    try:
        return pack(pipeline, directory, name=name, version=version), None
    except CannotCompileError as reason:
        manifest = msgspec.structs.replace(
            _draft_manifest(pipeline, name, version, Provenance()), kind="joblib"
        )
        return _publish(manifest, {PIPELINE: data}, directory, Provenance()), reason


def _draft_manifest(pipeline: Any, name: str, version: str, provenance: Provenance) -> Manifest:
    """Return a manifest without files or settings, with the pipeline's golden predictions."""
    column = positive_column(pipeline)
    try:
        golden = [
            Golden(text=text, positive=float(row[column]))
            for text, row in zip(
                GOLDEN_TEXTS, pipeline.predict_proba(list(GOLDEN_TEXTS)), strict=True
            )
        ]
    except Exception as error:  # noqa: BLE001 - a user's pipeline may raise anything
        raise ModelError(
            f"the pipeline fails on unusual texts ({type(error).__name__}: {error}): it must "
            "accept any text"
        ) from None
    return Manifest(
        format=FORMAT,
        name=name,
        version=version,
        kind="linear",
        labels=("negative", "positive"),
        low_confidence_below=LOW_CONFIDENCE_BELOW,
        files={},
        libraries=_library_versions(),
        sources=list(provenance.sources),
        metrics=list(provenance.metrics),
        golden=golden,
        training=provenance.training,
    )


def _publish(
    manifest: Manifest, files: dict[str, bytes], directory: Path, provenance: Provenance
) -> Manifest:
    """Write next to the target, load once, then rename: the target is never incomplete."""
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


def _library_versions() -> dict[str, str]:
    names = ("numpy", "scikit-learn", "scipy", "valence-ml")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version()} | versions
