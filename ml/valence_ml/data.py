"""Labelled text files: reading them, cleaning them for training, and where each comes from."""

import gzip
import html
import re
import zlib
from pathlib import Path
from typing import NamedTuple

from valence_ml.manifest import ModelError

NOT_STATED = "not stated"


class Examples(NamedTuple):
    """Texts and their labels (0 negative, 1 positive), in the same order."""

    texts: list[str]
    labels: list[int]


class Origin(NamedTuple):
    """Who made a data file, and its licence as its makers state it."""

    authors: str
    licence: str


_SST = "Socher et al., EMNLP 2013 (Stanford Sentiment Treebank; text: Pang & Lee 2005)"
_UCI = Origin(
    "Kotzias et al., KDD 2015 (UCI Sentiment Labelled Sentences)",
    "CC BY 4.0 by the UCI archive (dataset 331; not confirmed in the copies used)",
)
ORIGINS = {
    "sst2": Origin(_SST, NOT_STATED),
    "sst2_phrases": Origin(_SST + "; GLUE form: Wang et al. 2019", NOT_STATED),
    "rt_polarity": Origin("Pang & Lee, ACL 2005", NOT_STATED),
    "uci_amazon": _UCI,
    "uci_imdb": _UCI,
    "uci_yelp": _UCI,
    "imdb": Origin("Maas et al., ACL 2011 (Large Movie Review Dataset)", NOT_STATED),
    "mds_books_dvd_electronics": Origin(
        "Blitzer, Dredze & Pereira, ACL 2007 (Multi-Domain Sentiment Dataset)", NOT_STATED
    ),
    "cr": Origin("Hu & Liu, KDD 2004 (customer reviews)", NOT_STATED),
    "mpqa": Origin(
        "Wiebe, Wilson & Cardie, LREV 2005 (MPQA opinion phrases)",
        f"{NOT_STATED} (the MPQA corpus has terms of its own, not checked)",
    ),
    "cad_revised": Origin(
        "Kaushik, Hovy & Lipton, ICLR 2020 (counterfactually augmented IMDb reviews)", "Apache-2.0"
    ),
}
"""By the first part of the file's name; a file that is not here has everything 'not stated'."""

EXCLUDED = {
    "airline_us": "its licence forbids commercial use (CC BY-NC-SA 4.0)",
    "tweeteval": "Twitter's terms apply to it",
}
"""Never trained on, with the reason."""

EVERYDAY = Path(__file__).with_name("everyday.tsv")
"""Forty everyday sentences, negated ones among them, written for this check."""

# Left by the sources: literal escapes, HTML, the Penn Treebank's brackets.
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_TAG = re.compile(r"<\s*/?\s*(?:br|p|i|b|em|strong)\s*/?\s*>", re.IGNORECASE)
_BRACKET = re.compile(r"-(?:[lr][rsc]b)-", re.IGNORECASE)


def clean(text: str) -> str:
    """Undo what the sources did to a text, so that it reads as a user would write it.

    Contractions that they split are joined by the model's own normaliser.
    """
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    text = _TAG.sub(" ", html.unescape(text))
    return _BRACKET.sub(" ", text)


def stem(path: Path) -> str:
    """Give a data file's name without its endings: `sst2.dev` for `sst2.dev.tsv.gz`."""
    return path.name.removesuffix(".gz").removesuffix(".tsv")


def read(path: Path) -> Examples:
    """Read `label<TAB>text` lines, with or without a header line, gzip or not.

    Labels are 0, 1, negative or positive. ModelError names the file and line that is wrong.
    """
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        lines = data.decode().split("\n")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not UTF-8 text, gzip or not: {error}") from None
    values = {"0": 0, "1": 1, "negative": 0, "positive": 1}
    texts, labels = [], []
    for number, line in enumerate(lines, start=1):
        label, tab, text = line.rstrip("\r").partition("\t")
        if not line or (number == 1 and label == "label"):
            continue
        if not tab or label not in values:
            raise ModelError(f"{path}:{number} is not '0 or 1, a tab, the text'")
        texts.append(text)
        labels.append(values[label])
    if not texts:
        raise ModelError(f"{path} has no rows")
    return Examples(texts, labels)


def origin(path: Path) -> Origin:
    """Say who made a file and under which licence, as far as it is known here."""
    return ORIGINS.get(stem(path).split(".")[0], Origin(NOT_STATED, NOT_STATED))


def training_files(directory: Path) -> list[Path]:
    """List what a folder offers for training: its `*.train.tsv`, `.gz` or not, in order of name.

    Left out are files excluded by licence, those of three classes, and the sentences of SST where
    its phrases are, which contain them.
    """
    return _files(directory, "train")


def development_files(directory: Path) -> list[Path]:
    """List a folder's `*.dev.tsv`, `.gz` or not: measured, never trained on."""
    return _files(directory, "dev")


def _files(directory: Path, split: str) -> list[Path]:
    found = {
        stem(path).split(".")[0]: path
        for ending in (f".{split}.tsv", f".{split}.tsv.gz")
        for path in directory.glob(f"*{ending}")
    }
    if split == "train" and "sst2_phrases" in found:
        found.pop("sst2", None)
    return [path for name, path in sorted(found.items()) if name not in EXCLUDED]
