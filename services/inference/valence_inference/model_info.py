"""The served model as its release describes it: the manifest and the model card."""

from pathlib import Path

from valence_common.problems import NotFound
from valence_ml import Manifest, Scorer, model_name

CARD_FILE = "MODEL_CARD.md"


class ModelNotFound(NotFound):
    """No model of that version is served here."""

    detail = "Model not found"


def find(scorer: Scorer, version: str) -> Manifest:
    """Return the manifest of the served model if `version` is its version or `name@version`.

    Raises `ModelNotFound` otherwise.
    """
    if version not in {scorer.version, model_name(scorer)}:
        raise ModelNotFound
    return scorer.manifest


def read_card(folder: Path) -> str:
    """Return the model card of a release, in Markdown; empty if it has none."""
    path = folder / CARD_FILE
    return path.read_text(encoding="utf-8") if path.is_file() else ""
