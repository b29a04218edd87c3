"""Load and run sentiment models.

`python -m valence_ml` trains, evaluates, packs and verifies them. Importing this package does not
import scikit-learn, SciPy, joblib or NumPy.
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
