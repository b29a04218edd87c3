"""Load a release: verify hashes, open the model, reproduce the golden predictions."""

from pathlib import Path

from valence_ml import release
from valence_ml.linear import WEIGHTS, LinearScorer, LinearWeights
from valence_ml.manifest import Manifest, ModelError
from valence_ml.scorer import Scorer

DEFAULT_MODEL = Path(__file__).with_name("releases") / "valence-default-1.0.0"
"""The release that ships with this package."""

TOLERANCE = 1e-9
"""Largest difference between a loaded model's probability and its golden prediction."""


def load(directory: Path) -> Scorer:
    """Load the model in a release folder.

    The hash of every file is compared before any file is opened, and the model must reproduce its
    golden predictions. Raise ModelError with one sentence when anything is wrong.
    """
    directory = Path(directory)
    manifest, files = release.read(directory)
    scorer = _open(directory, manifest, files)
    if (mismatch := golden_mismatch(scorer)) is not None:
        raise ModelError(f"{directory} {mismatch}: pack the model again")
    return scorer


def golden_mismatch(scorer: Scorer) -> str | None:
    """Describe the first golden prediction that a scorer does not reproduce, or return None."""
    goldens = scorer.manifest.golden
    scores = scorer.score([golden.text for golden in goldens])
    for golden, score in zip(goldens, scores, strict=True):
        # Not `>`: every comparison with NaN is false.
        if not abs(score.positive - golden.positive) <= TOLERANCE:
            return (
                f"gives {score.positive} where its manifest promises {golden.positive} "
                f"(for {golden.text[:40]!r})"
            )
    return None


def _open(directory: Path, manifest: Manifest, files: dict[str, bytes]) -> Scorer:
    if manifest.kind == "linear":
        try:
            return LinearScorer(manifest, LinearWeights.unpack(files[WEIGHTS]))
        except KeyError:
            raise ModelError(f"{directory} lists no {WEIGHTS}: pack the model again") from None
        except ValueError as error:
            raise ModelError(f"{directory / WEIGHTS} cannot be used ({error})") from None
    # Imported here because it imports scikit-learn, which the linear kind does not need.
    from valence_ml.pipeline import PIPELINE, PipelineScorer  # noqa: PLC0415

    try:
        return PipelineScorer.open(manifest, files[PIPELINE])
    except KeyError:
        raise ModelError(f"{directory} lists no {PIPELINE}: pack the model again") from None
