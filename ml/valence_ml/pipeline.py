"""The `joblib` kind: any scikit-learn text pipeline, run as it is.

Opening a joblib file executes what is in it. The hash in the manifest says that the file is the one
that was packed, not that it is harmless: load releases from people you trust.
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
    """Find the column of `predict_proba` that is 'positive'; ModelError when there is none."""
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
    """Open a joblib file, which executes what is in it; ModelError when it does not open.

    A pipeline that was saved by another release of scikit-learn is refused: it may open and be
    silently wrong.
    """
    # Imported here so that this module can be imported, and say what is missing, without them.
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
    """Scores with the pipeline's own `predict_proba`; cannot explain.

    `low_confidence` looks at the confidence only, because the kind knows nothing of terms.
    """

    def __init__(self, manifest: Manifest, pipeline: Any) -> None:
        self._manifest = manifest
        self._column = positive_column(pipeline)
        self._predict: Callable[[list[str]], Any] = pipeline.predict_proba

    @classmethod
    def open(cls, manifest: Manifest, data: bytes) -> "PipelineScorer":
        """Open a verified file, if it was made with the scikit-learn that is installed."""
        recorded = manifest.libraries.get("scikit-learn", "an unknown version")
        try:
            from sklearn import __version__ as installed  # noqa: PLC0415 - see unpickle
        except ImportError:
            installed = "not installed"
        if recorded.split(".")[:2] != installed.split(".")[:2]:
            raise ModelError(
                f"the model was packed with scikit-learn {recorded} and here it is {installed}: "
                "install that version or pack the model again"
            )
        return cls(manifest, unpickle(data))

    @property
    def manifest(self) -> Manifest:
        """What the release says about itself."""
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
        """Score the texts, in their order; ModelError when the pipeline fails on them."""
        if not texts:
            return []
        try:
            answers = [float(row[self._column]) for row in self._predict(list(texts))]
        except Exception as error:  # noqa: BLE001 - a pipeline of the user's raises anything
            raise ModelError(
                f"the pipeline of {self.name} {self.version} failed ({type(error).__name__})"
            ) from None
        if len(answers) != len(texts) or not all(0.0 <= answer <= 1.0 for answer in answers):
            raise ModelError(f"the pipeline of {self.name} {self.version} gave no probabilities")
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
        """Give nothing: a pipeline can be anything."""
        return None
