"""A model of the `joblib` kind that does what a text tells it to, for what goes wrong in workers.

Processes that load it need this folder on their path: `Stack(environment=odd_model.ENVIRONMENT)`.
"""

import importlib.metadata
import os
import pickle
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from valence_ml import release
from valence_ml.manifest import FORMAT, Golden, Manifest
from valence_ml.pipeline import PIPELINE

ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1])}

RAISES = "this text makes the model raise"
KILLS = "this text kills the process"
GOLDEN = "good"
HANGS = "this text hangs the process"


class OddPipeline:
    """Takes `seconds` for a call; 'good' is positive, all else negative."""

    classes_ = ("negative", "positive")

    def __init__(self, seconds: float):
        self.seconds = seconds

    def predict_proba(self, texts: Sequence[str]) -> list[tuple[float, float]]:
        if texts != [GOLDEN]:  # loading a release is not slow
            time.sleep(self.seconds)
        if any(RAISES in text for text in texts):
            raise ValueError
        if any(KILLS in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(HANGS in text for text in texts):
            time.sleep(3600)
        return [(0.25, 0.75) if "good" in text else (0.75, 0.25) for text in texts]


def write(folder: Path, *, seconds: float = 0.0) -> Path:
    """A release of it, in a new folder."""
    manifest = Manifest(
        format=FORMAT,
        name="odd",
        version="1",
        kind="joblib",
        labels=("negative", "positive"),
        low_confidence_below=0.5,
        files={},
        libraries={"scikit-learn": importlib.metadata.version("scikit-learn")},
        sources=[],
        metrics=[],
        golden=[Golden(text=GOLDEN, positive=0.75)],
    )
    release.write(folder, manifest, {PIPELINE: pickle.dumps(OddPipeline(seconds))})
    return folder
