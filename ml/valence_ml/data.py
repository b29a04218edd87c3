"""Labelled text files: reading, cleaning for training, and their origins."""

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
    """Authors of a data file, and its licence as they state it."""

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
"""By the first part of the file name. For other files both fields are 'not stated'."""

EXCLUDED = {
    "airline_us": "its licence forbids commercial use (CC BY-NC-SA 4.0)",
    "tweeteval": "Twitter's terms apply to it",
}
"""Files that are never trained on, with the reason."""

EVERYDAY = Path(__file__).with_name("everyday.tsv")
"""Forty everyday sentences, some of them negated, written for this project."""

# Artefacts of the sources: literal escapes, HTML, Penn Treebank brackets.
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_TAG = re.compile(r"<\s*/?\s*(?:br|p|i|b|em|strong)\s*/?\s*>", re.IGNORECASE)
_BRACKET = re.compile(r"-(?:[lr][rsc]b)-", re.IGNORECASE)


def clean(text: str) -> str:
    """Remove the artefacts of the sources, so that the text reads as a user would write it.

    Split contractions are joined later, by `valence_ml.text.normalise`.
    """
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    text = _TAG.sub(" ", html.unescape(text))
    return _BRACKET.sub(" ", text)


def stem(path: Path) -> str:
    """Return a data file's name without its extensions: `sst2.dev` for `sst2.dev.tsv.gz`."""
    return path.name.removesuffix(".gz").removesuffix(".tsv")


def read(path: Path) -> Examples:
    """Read `label<TAB>text` lines, with or without a header line, optionally gzipped.

    Labels are 0, 1, negative or positive. Raise ModelError, naming the file and the line.
    """
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        lines = data.decode().split("\n")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not UTF-8 text, plain or gzipped: {error}") from None
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
    """Return the authors and the licence of a file, as far as they are known."""
    return ORIGINS.get(stem(path).split(".")[0], Origin(NOT_STATED, NOT_STATED))


def training_files(directory: Path) -> list[Path]:
    """Return a folder's `*.train.tsv` files, optionally gzipped, ordered by name.

    Excluded are the files in `EXCLUDED`, files with three classes, and `sst2` when `sst2_phrases`
    is present, which contains its sentences.
    """
    return _files(directory, "train")


def development_files(directory: Path) -> list[Path]:
    """Return a folder's `*.dev.tsv` files, optionally gzipped: measured, never trained on."""
    return _files(directory, "dev")


def _files(directory: Path, split: str) -> list[Path]:
    by_name = {
        stem(path).split(".")[0]: path
        for ending in (f".{split}.tsv", f".{split}.tsv.gz")
        for path in directory.glob(f"*{ending}")
    }
    if split == "train" and "sst2_phrases" in by_name:
        by_name.pop("sst2", None)
    return [path for name, path in sorted(by_name.items()) if name not in EXCLUDED]
