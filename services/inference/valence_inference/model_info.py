"""Releases: which models are served, and what their makers say about them."""

from pathlib import Path

import msgspec

from valence_common.problems import NotFound
from valence_inference.schemas import models as schemas
from valence_ml import Scorer, model_name

CARD_FILE = "MODEL_CARD.md"


class ModelNotFound(NotFound):
    """No model of that version is served here."""

    detail = "Model not found"


def get_summary(scorer: Scorer) -> schemas.ModelSummary:
    """The served model in short."""
    return schemas.ModelSummary.model_validate(_fields(scorer), extra="ignore")


def get_model(scorer: Scorer, folder: Path, version: str) -> schemas.Model:
    """The served model in full, if it is called `version`; raises `ModelNotFound`."""
    if version not in {scorer.version, model_name(scorer)}:
        raise ModelNotFound
    path = folder / CARD_FILE
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    return schemas.Model.model_validate(_fields(scorer) | {"card": card}, extra="ignore")


def _fields(scorer: Scorer) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(scorer.manifest)
    return fields
