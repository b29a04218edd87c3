"""The manifest of a release, as in `manifest.json`."""

from typing import Annotated, Literal

import msgspec

FORMAT = 1
"""The manifest format that this package writes, and the newest that it reads."""

Slug = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ModelError(Exception):
    """A model cannot be read, trusted, packed or run; the message says how to fix it."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class FileEntry(_Strict, frozen=True):
    """Size in bytes and SHA-256 of one file."""

    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Digest


class Source(_Strict, frozen=True):
    """A data file that the model was trained on."""

    file: str
    rows: int
    authors: str
    licence: str


class Metric(_Strict, frozen=True):
    """Accuracy on one file, and that of the naive Bayes baseline if it was trained as well."""

    file: str
    rows: int
    accuracy: Probability
    log_loss: float
    baseline_accuracy: Probability | None = None


class Training(_Strict, frozen=True):
    """How to reproduce the weights."""

    command: str
    seed: int


class Golden(_Strict, frozen=True):
    """A text and the probability of 'positive' that the loaded model must reproduce."""

    text: str
    positive: Probability


class LinearSettings(_Strict, frozen=True):
    """How the linear kind computes a logit from a text with the numbers in `weights.npz`.

    The names are those of scikit-learn's `TfidfVectorizer`, except `normaliser`, a key of
    `valence_ml.text.NORMALISERS`, and `tf`, which combines `sublinear_tf` and `binary`.
    """

    normaliser: str
    token_pattern: str
    ngram_range: tuple[int, int]
    tf: Literal["count", "sublinear", "binary"]
    norm: Literal["l2"] | None
    bias: float


class Manifest(_Strict, frozen=True):
    """A manifest. `libraries` holds the versions used for training."""

    format: int
    name: Slug
    version: Slug
    kind: Literal["linear", "joblib"]
    labels: tuple[Literal["negative"], Literal["positive"]]
    low_confidence_below: Annotated[float, msgspec.Meta(ge=0.5, le=1)]
    files: dict[FileName, FileEntry]
    libraries: dict[str, str]
    sources: list[Source]
    metrics: list[Metric]
    golden: Annotated[list[Golden], msgspec.Meta(min_length=1)]
    training: Training | None = None
    linear: LinearSettings | None = None


class _FormatOnly(msgspec.Struct):
    format: int


def parse(data: bytes, origin: str) -> Manifest:
    """Read a manifest, or raise ModelError; `origin` is the file's path, for the message."""
    try:
        version = msgspec.json.decode(data, type=_FormatOnly).format
        if version > FORMAT:
            raise ModelError(
                f"{origin} has format {version} and this valence_ml reads up to {FORMAT}: "
                "upgrade Valence or use an older release of the model"
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"{origin} is not a model manifest ({error}): copy the release again"
        ) from None


def serialise(manifest: Manifest) -> bytes:
    """Return a manifest as indented JSON, so that two releases can be compared as text."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
