"""Normalisation is a written-out table: the scorer and the reference must both agree with it."""

import re

import pytest

from valence_ml.text import TOKEN_PATTERN, normalise

NORMALISED = {
    "I LOVE It": "i love it",
    "\u0130 \u1e9e \u03a3": "i\u0307 \u00df \u03c3",
    # Every kind of apostrophe.
    "Doesn't": "doesn't",
    "Doesn\u2019t": "doesn't",
    "Doesn\u2018t": "doesn't",
    "Doesn\u02bct": "doesn't",
    "Doesn\uff07t": "doesn't",
    "Doesn\u2032t": "doesn't",
    "Doesn\u00b4t": "doesn't",
    # Split contractions.
    "it does n't work": "it doesn't work",
    "i haven 't seen it": "i haven't seen it",
    "it 's the film 's": "it's the film's",
    "we 're late": "we're late",
    "they 've seen it": "they've seen it",
    "you 'll love it": "you'll love it",
    "he 'd go": "he'd go",
    "i 'm happy": "i'm happy",
    "THEY \u2032VE, you \u2019LL": "they've, you'll",
    "he CA N'T , we \u2019re": "he can't , we're",
    # Not contractions.
    "nothing to do 'tis": "nothing to do 'tis",
    "the 'dull' one": "the 'dull' one",
    "rock 'n roll": "rock 'n roll",
    "'m , 's": "'m , 's",
    "does  n't": "does  n't",
    "isn\u2033t": "isn\u2033t",
}


@pytest.mark.parametrize("text", NORMALISED)
def test_text_is_normalised(text: str) -> None:
    """Lower case, ASCII apostrophes, joined contractions, and nothing else."""
    assert NORMALISED[text] == normalise(text)


@pytest.mark.parametrize("apostrophe", "'\u2019\u2018\u02bc\uff07\u2032\u00b4")
def test_apostrophes_stay_within_tokens(apostrophe: str) -> None:
    """A word with an apostrophe is one token, whichever apostrophe it is."""
    assert ["doesn't"] == re.findall(TOKEN_PATTERN, normalise(f"'Doesn{apostrophe}t'"))
