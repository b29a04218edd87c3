"""The models that are served."""

from typing import Literal

from pydantic import BaseModel

from valence_inference.schemas.fields import Sentiment


class ModelSummary(BaseModel):
    """A model that is served."""

    name: str
    version: str
    kind: Literal["linear", "joblib"]
    labels: list[Sentiment]


class ModelMetric(BaseModel):
    """How well it does on one data set that it was not trained on."""

    file: str
    rows: int
    accuracy: float
    log_loss: float


class ModelSource(BaseModel):
    """What it was trained on; the licence is as stated, or `not stated`."""

    file: str
    rows: int
    authors: str
    licence: str


class Model(ModelSummary):
    """A model with what its release says about it; `card` is Markdown."""

    low_confidence_below: float
    metrics: list[ModelMetric]
    sources: list[ModelSource]
    card: str


class ModelPage(BaseModel):
    """The models that are served."""

    items: list[ModelSummary]
    next_cursor: str | None = None
