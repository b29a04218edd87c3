"""Normalisation and tokens, the same for training and serving."""

import re
from collections.abc import Callable, Mapping

TOKEN_PATTERN = r"\w+(?:'\w+)*"  # noqa: S105 - a token of a text
"""Words, with apostrophes inside them: `doesn't` is one token and keeps its negation.

Matching takes linear time: the apostrophe is not a word character, so a match is never ambiguous.
"""

# Right and left single quotation mark, modifier letter, full-width apostrophe, prime, acute accent.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc\uff07\u2032\u00b4", "'"))


# The Penn Treebank and many tools write `does n't` and `it 's`.
_CONTRACTION = re.compile(r"(?<=\w) (?=n't\b|'(?:t|s|re|ve|ll|d|m)\b)")


def normalise(text: str) -> str:
    """Lower-case, replace every kind of apostrophe by the ASCII one, join split contractions.

    A split `does n't` would lose its negation: `TOKEN_PATTERN` finds `n` and `t` in it.
    """
    text = text.lower()
    if not text.isascii():
        text = text.translate(_APOSTROPHES)
    return _CONTRACTION.sub("", text) if "'" in text else text


NORMALISERS: Mapping[str, Callable[[str], str]] = {
    "none": str,
    "lower": str.lower,
    "valence": normalise,
}
"""The normalisers that a linear release can name."""
