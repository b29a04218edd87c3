"""Which texts are accepted."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from valence_common.problems import Unprocessable
from valence_inference.scoring import check_text, score
from valence_ml import DEFAULT_MODEL, Manifest, ModelError, Score, load


def _refusal(text: str) -> tuple[str, str]:
    with pytest.raises(Unprocessable) as refused:
        check_text(text, max_characters=10)
    (error,) = refused.value.errors
    assert "yyy" not in error.message
    return error.field, error.rule


def test_texts_within_the_limits_pass() -> None:
    """The limit is in characters, not in bytes."""
    check_text("x" * 10, max_characters=10)
    check_text("\U0001f600" * 10, max_characters=10)


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u00a0", "\u2003\u3000", "\x1c"])
def test_blank_texts_are_refused(blank: str) -> None:
    """A text needs a visible character."""
    assert ("body.text", "blank") == _refusal(blank)


def test_long_texts_are_refused() -> None:
    """The error does not contain the text."""
    assert ("body.text", "string_too_long") == _refusal("y" * 11)


class _Failing:
    """A pipeline that cannot score a text."""

    name, version = "odd", "1"

    def __init__(self) -> None:
        self.manifest: Manifest = msgspec.structs.replace(
            load(DEFAULT_MODEL).manifest, kind="joblib"
        )

    def score(self, texts: Sequence[str]) -> list[Score]:
        raise ModelError("no")

    def explain(self, text: str) -> None:
        return None


def test_a_model_that_fails_is_the_texts_problem() -> None:
    """An error of an operator's model becomes a 422 that names the field, not a 500."""
    with pytest.raises(Unprocessable) as refused:
        asyncio.run(score(_Failing(), "fine"))
    assert [("body.text", "unscorable")] == [(e.field, e.rule) for e in refused.value.errors]
