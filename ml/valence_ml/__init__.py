"""Sentiment models: load and run them.

Training, evaluating and packing them is `python -m valence_ml`, for the command line.
Importing this package brings neither scikit-learn, SciPy, joblib nor NumPy.
"""

from valence_ml.loading import DEFAULT_MODEL, load
from valence_ml.manifest import Manifest, ModelError
from valence_ml.scorer import Contribution, Explanation, Score, Scorer, model_name

__all__ = [
    "DEFAULT_MODEL",
    "Contribution",
    "Explanation",
    "Manifest",
    "ModelError",
    "Score",
    "Scorer",
    "load",
    "model_name",
]
