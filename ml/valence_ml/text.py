"""From a text to its tokens: normalising, shared by training and serving, and the token pattern."""

import re
from collections.abc import Callable, Mapping

TOKEN_PATTERN = r"\w+(?:'\w+)*"  # noqa: S105 - a token of a text
"""Words with the apostrophe kept inside, so that `doesn't` stays one token and keeps its negation.

Linear in the length of the text: the apostrophe is no word character, so there is one way to match.
"""

# Right and left single quotation mark, modifier letter, full-width one, prime, acute accent.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc\uff07\u2032\u00b4", "'"))


# `does n't` and `it 's`, as the Penn Treebank and many tools split them.
_CONTRACTION = re.compile(r"(?<=\w) (?=n't\b|'(?:t|s|re|ve|ll|d|m)\b)")


def normalise(text: str) -> str:
    """Lower-case, write every kind of apostrophe as the ASCII one, join split contractions.

    Split, `does n't` would lose its negation: the pattern finds no lone `n't` that training knew.
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
"""The normalisers that a linear release may name."""
