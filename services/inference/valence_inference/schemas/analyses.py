"""One text, scored now."""

import uuid

from pydantic import BaseModel, Field

from valence_inference.schemas.fields import STRICT, Sentiment, Text


class AnalyzeRequest(BaseModel):
    """One text to score."""

    model_config = STRICT

    text: Text = Field(
        description="The text, up to 10,000 characters.", examples=["I love this product!"]
    )
    explain: bool = Field(default=False, description="Also tell what each term contributed.")


class Term(BaseModel):
    """What one term of the text added to the logit of `positive`."""

    term: str
    count: int
    contribution: float


class Explanation(BaseModel):
    """Exact: the bias and all contributions add up to the logit."""

    bias: float
    logit: float
    terms: list[Term]


class Analysis(BaseModel):
    """The answer for one text; `processing_time` is in seconds."""

    id: uuid.UUID
    text: str
    sentiment: Sentiment
    confidence: float = Field(ge=0.5, le=1)
    probabilities: dict[Sentiment, float]
    low_confidence: bool = Field(description="No term of the text is known, or it is a close call.")
    model: str
    processing_time: float
    recorded: bool = Field(description="Whether the answer is in the history.")
    explanation: Explanation | None = None
