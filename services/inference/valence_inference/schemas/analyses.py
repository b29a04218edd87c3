"""Analysis of one text."""

import uuid

from pydantic import BaseModel, Field

from valence_inference.schemas.fields import STRICT, Sentiment, Text
from valence_ml import Explanation as ModelExplanation


class AnalyzeRequest(BaseModel):
    """One text to score."""

    model_config = STRICT

    text: Text = Field(
        description="The text, up to 10,000 characters.", examples=["I love this product!"]
    )
    explain: bool = Field(
        default=False, description="Whether to include the contribution of each term."
    )


class Term(BaseModel):
    """A term of the text, and its contribution to the logit of `positive`."""

    term: str
    count: int
    contribution: float


class Explanation(BaseModel):
    """An exact explanation: the bias and all contributions add up to the logit."""

    bias: float
    logit: float
    terms: list[Term]

    @classmethod
    def from_model(cls, explanation: ModelExplanation | None) -> "Explanation | None":
        """Convert the model's explanation; None if the model cannot explain."""
        if explanation is None:
            return None
        return cls(
            bias=explanation.bias,
            logit=explanation.logit,
            terms=[
                Term(term=part.term, count=part.count, contribution=part.value)
                for part in explanation.contributions
            ],
        )


class Analysis(BaseModel):
    """The result for one text; `processing_time` is in seconds."""

    id: uuid.UUID
    text: str
    sentiment: Sentiment
    confidence: float = Field(ge=0.5, le=1)
    probabilities: dict[Sentiment, float]
    low_confidence: bool = Field(
        description="Whether the model knows no term of the text, or the result is close."
    )
    model: str
    processing_time: float
    recorded: bool = Field(description="Whether the result was recorded in the history.")
    explanation: Explanation | None = None
