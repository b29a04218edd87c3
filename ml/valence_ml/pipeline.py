"""The `joblib` kind: any scikit-learn text pipeline, run unchanged.

Opening a joblib file executes the code in it. The hash in the manifest proves that the file is the
one that was packed, not that it is harmless: load only releases from people you trust.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from valence_ml.manifest import Manifest, ModelError
from valence_ml.scorer import Explanation, Score, decide

PIPELINE = "pipeline.joblib"

_POSITIVE = {"1", "positive", "pos", "true"}
_NEGATIVE = {"0", "-1", "negative", "neg", "false"}


def positive_column(pipeline: Any) -> int:
    """Return the column of `predict_proba` for 'positive'; raise ModelError if there is none."""
    names = [str(name).lower() for name in getattr(pipeline, "classes_", [])]
    if len(names) == 2 and callable(getattr(pipeline, "predict_proba", None)):
        for column in (0, 1):
            if names[column] in _POSITIVE and names[1 - column] in _NEGATIVE:
                return column
    raise ModelError(
        "the pipeline must be fitted, offer predict_proba and have two classes, "
        f"0 and 1 or 'negative' and 'positive' (it has: {', '.join(names) or 'none'})"
    )


def unpickle(data: bytes) -> Any:
    """Open a joblib file, which executes the code in it; raise ModelError if it does not open.

    A pipeline saved by another release of scikit-learn is rejected: it might open and give wrong
    answers.
    """
    # Imported here so that this module works without scikit-learn and can say that it is missing.
    try:
        import joblib  # noqa: PLC0415
        from sklearn.exceptions import InconsistentVersionWarning  # noqa: PLC0415
    except ImportError:
        raise ModelError("a joblib model needs scikit-learn: install 'valence-ml[train]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            return joblib.load(io.BytesIO(data))
    except InconsistentVersionWarning as error:
        raise ModelError(
            f"the pipeline was saved by scikit-learn {error.original_sklearn_version} and this is "
            f"{error.current_sklearn_version}: save it again with this one"
        ) from None
    except Exception as error:  # noqa: BLE001 - opening runs any code, which raises anything
        raise ModelError(
            f"the joblib file does not open ({type(error).__name__}: {error}): save it again here"
        ) from None


class PipelineScorer:
    """A scorer that calls the pipeline's `predict_proba`; it cannot explain scores.

    `low_confidence` depends on the confidence only, because this kind has no list of known terms.
    """

    def __init__(self, manifest: Manifest, pipeline: Any) -> None:
        self._manifest = manifest
        self._column = positive_column(pipeline)
        self._predict: Callable[[list[str]], Any] = pipeline.predict_proba

    @classmethod
    def open(cls, manifest: Manifest, data: bytes) -> "PipelineScorer":
        """Open a verified file; raise ModelError unless scikit-learn is of the recorded release."""
        recorded = manifest.libraries.get("scikit-learn", "an unknown version")
        try:
            from sklearn import __version__ as installed  # noqa: PLC0415 - see unpickle
        except ImportError:
            installed = "no version"
        if recorded.split(".")[:2] != installed.split(".")[:2]:
            raise ModelError(
                f"the model was packed with scikit-learn {recorded}, but {installed} is installed: "
                "install that version or pack the model again"
            )
        return cls(manifest, unpickle(data))

    @property
    def manifest(self) -> Manifest:
        """The manifest of the release."""
        return self._manifest

    @property
    def name(self) -> str:
        """The model's name."""
        return self._manifest.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self._manifest.version

    def score(self, texts: Sequence[str]) -> list[Score]:
        """Return one score per text, in order; raise ModelError if the pipeline fails."""
        if not texts:
            return []
        try:
            answers = [float(row[self._column]) for row in self._predict(list(texts))]
        except Exception as error:  # noqa: BLE001 - a user's pipeline may raise anything
            raise ModelError(
                f"the pipeline of {self.name} {self.version} failed ({type(error).__name__})"
            ) from None
        if len(answers) != len(texts) or not all(0.0 <= answer <= 1.0 for answer in answers):
            raise ModelError(
                f"the pipeline of {self.name} {self.version} did not return probabilities"
            )
        return [
            decide(
                answer,
                is_positive=answer > 0.5,
                known=True,
                threshold=self._manifest.low_confidence_below,
            )
            for answer in answers
        ]

    def explain(self, _text: str) -> Explanation | None:
        """Return None: the terms of an arbitrary pipeline are not known."""
        return None
