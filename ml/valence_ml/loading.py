"""From a folder to a scorer: verified first, opened second, believed third."""

from pathlib import Path

from valence_ml import release
from valence_ml.linear import WEIGHTS, LinearScorer, LinearWeights
from valence_ml.manifest import Manifest, ModelError
from valence_ml.scorer import Scorer

DEFAULT_MODEL = Path(__file__).with_name("releases") / "valence-default-1.0.0"
"""The release that this package carries."""

TOLERANCE = 1e-9
"""How far a loaded model's probability may be from its golden prediction, and from scikit-learn."""


def load(directory: Path) -> Scorer:
    """Load the model of a release folder.

    The hash of every file is compared before any of them is opened, and the model must give its
    golden predictions again. ModelError, with a sentence, when anything is wrong.
    """
    directory = Path(directory)
    manifest, files = release.read(directory)
    scorer = _open(directory, manifest, files)
    if (sentence := difference(scorer)) is not None:
        raise ModelError(f"{directory} {sentence}: pack the model again")
    return scorer


def difference(scorer: Scorer) -> str | None:
    """Say where a scorer first differs from its golden predictions, or None when it does not."""
    goldens = scorer.manifest.golden
    answers = scorer.score([golden.text for golden in goldens])
    for golden, answer in zip(goldens, answers, strict=True):
        # Written so that NaN differs too.
        if not abs(answer.positive - golden.positive) <= TOLERANCE:
            return (
                f"gives {answer.positive} where its manifest promises {golden.positive} "
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
    # Imported here because it brings scikit-learn, which the linear kind must never pay for.
    from valence_ml.pipeline import PIPELINE, PipelineScorer  # noqa: PLC0415

    try:
        return PipelineScorer.open(manifest, files[PIPELINE])
    except KeyError:
        raise ModelError(f"{directory} lists no {PIPELINE}: pack the model again") from None
