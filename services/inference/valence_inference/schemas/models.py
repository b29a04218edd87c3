"""The served models."""

from typing import Literal, Self

import msgspec
from pydantic import BaseModel

from valence_inference.schemas.fields import Sentiment
from valence_ml import Manifest


class ModelSummary(BaseModel):
    """A served model."""

    name: str
    version: str
    kind: Literal["linear", "joblib"]
    labels: list[Sentiment]

    @classmethod
    def from_manifest(cls, manifest: Manifest, **extra: str) -> Self:
        """Convert the manifest of a model; `extra` are fields that it does not have."""
        fields = msgspec.to_builtins(manifest) | extra
        return cls.model_validate(fields, extra="ignore")


class ModelMetric(BaseModel):
    """How well the model does on one data set that it was not trained on."""

    file: str
    rows: int
    accuracy: float
    log_loss: float


class ModelSource(BaseModel):
    """A data set that the model was trained on; `licence` as published, or `not stated`."""

    file: str
    rows: int
    authors: str
    licence: str


class Model(ModelSummary):
    """A model with its metrics, sources and model card; `card` is Markdown."""

    low_confidence_below: float
    metrics: list[ModelMetric]
    sources: list[ModelSource]
    card: str


class ModelPage(BaseModel):
    """The served models."""

    items: list[ModelSummary]
    next_cursor: str | None = None
