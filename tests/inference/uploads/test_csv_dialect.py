"""Detection of the delimiter from the first rows."""

import pytest

from support.uploads import read_file, texts_of
from valence_inference.uploads.csv_dialect import SAMPLE_BYTES, sniff


@pytest.mark.parametrize(
    ("sample", "delimiter"),
    [
        ("id,text\n1,fine\n", ","),
        ("id;text\n1;fine, really\n2;no\n", ";"),
        ("id\ttext\n1\tfine, and; good\n", "\t"),
        ("id|text|x\n1|a,b|2\n", "|"),
        ('id;text\n1;"a;b,c\nd"\n2;"x"\n', ";"),
        ("a;b\n1,5;2,5\n0,5;1,5\n", ";"),
        ("a,b;c\n1,2;3\n", ","),
        ("text\nhello, world\nfine\n", ";"),
        ("text\nfine\n", ","),
        ("id,text\n1,hello\n2,hi,there\n", ","),
        ("id,text\r1,fine\r", ","),
        ("text\n\n\n", ","),
        ("", ","),
        ('"open', ","),
    ],
)
def test_delimiters(sample: str, delimiter: str) -> None:
    """Consistency comes first, then the number of columns, then the order of `DELIMITERS`."""
    assert delimiter == sniff(sample.encode(), whole=True)


def test_an_incomplete_last_row_does_not_count() -> None:
    """A sample can end within a row."""
    assert ";" == sniff(b"a;b;c\n1;2;3\n4;5", whole=False)


def test_a_sample_decides_for_the_whole_file() -> None:
    """Wherever the body is split into parts."""
    rows = [f"{n};text, number {n}" for n in range(SAMPLE_BYTES // 8)]
    body = "\n".join(["id;text", *rows]).encode()
    for cuts in ([], [1, 2, 3], range(0, len(body), 1000)):
        assert f"text, number {len(rows) - 1}" == texts_of(read_file(body, cuts))[-1]
