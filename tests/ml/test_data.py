"""Labelled files are read unchanged, and cleaned of the artefacts of their sources."""

import gzip
from pathlib import Path

import pytest

from valence_ml import ModelError, data


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("-lrb- sic -RRB- text", "  sic   text"),
        ("good<br /><br />bad", "good  bad"),
        ("Tom &amp; Jerry &lt;3", "Tom & Jerry <3"),
        (r"it\u2019s", "it\u2019s"),
        ("nothing to do 'tis", "nothing to do 'tis"),
    ],
)
def test_text_is_cleaned(raw: str, clean: str) -> None:
    """Brackets, tags and escapes are undone."""
    assert data.clean(raw) == clean


@pytest.mark.parametrize("header", ["", "label\ttext\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_file_is_read_with_or_without_header_and_gzip(
    header: str, pack: type[bytes], tmp_path: Path
) -> None:
    """The first tab splits; later tabs, quotes and odd line separators belong to the text."""
    path = tmp_path / "x.tsv"
    path.write_bytes(pack((header + '1\t"a\tb\u2028"\r\nnegative\tc\n\n').encode()))
    assert data.read(path) == (['"a\tb\u2028"', "c"], [1, 0])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no rows"),
        (b"label\ttext\n", "has no rows"),
        (b"1\tgood\n2\tbad\n", r"x\.tsv:2 is not"),
        (b"good\n", r"x\.tsv:1 is not"),
        (b"1\t\xff\n", "is not UTF-8"),
        (gzip.compress(b"1\tgood\n", mtime=0)[:-9], "is not UTF-8 text, plain or gzipped"),
        (b"\x1f\x8b\x00\x00", "is not UTF-8 text, plain or gzipped"),
        (b"\x1f\x8b" + b"x" * 30, "cannot be read"),
    ],
)
def test_wrong_file_is_refused_with_a_sentence(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    """ModelError names the file and, where it can, the line."""
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=sentence):
        data.read(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A missing file is a ModelError, too."""
    with pytest.raises(ModelError, match="cannot be read"):
        data.read(tmp_path / "x.tsv")


def test_training_files_exclude_the_forbidden_ones(tmp_path: Path) -> None:
    """No development file, no three classes, no excluded licence, and SST only once."""
    names = ["a.train.tsv", "b.train.tsv.gz", "c.dev.tsv", "d.train.3class.tsv.gz", "README.md"]
    names += ["airline_us.train.tsv", "tweeteval.train.tsv", "sst2.train.tsv.gz"]
    names += ["sst2_phrases.train.tsv.gz"]
    for name in names:
        (tmp_path / name).touch()
    names = [path.name for path in data.training_files(tmp_path)]
    assert names == ["a.train.tsv", "b.train.tsv.gz", "sst2_phrases.train.tsv.gz"]
    assert [path.name for path in data.development_files(tmp_path)] == ["c.dev.tsv"]
