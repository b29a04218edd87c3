"""Multipart forms: the same batch as the file alone, wherever the body is split."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.uploads import LIMITS, any_url, read, read_file, table_of, texts_of
from valence_common.problems import DomainError, Invalid, Unprocessable, UnsupportedMedia
from valence_inference.batches.submission import Submission
from valence_inference.uploads.multipart import MultipartUpload
from valence_inference.uploads.options import BatchOptions
from valence_inference.uploads.upload import NDJSON

BOUNDARY = "-b'?"
# What only begins like the boundary is content.
FILE = b'id,text\r\n1,"a\r\n--' + BOUNDARY[:-1].encode() + b'"\r\n2,b\r\n'


def part(name: str, content: bytes, *headers: str, file_name: str | None = None) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if file_name is not None:
        disposition += f'; filename="{file_name}"'
    head = "\r\n".join([f"--{BOUNDARY}", disposition, *headers])
    return head.encode() + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def upload(body: bytes, cuts: Any = (), **options: Any) -> Submission:
    return read(MultipartUpload(BOUNDARY, BatchOptions(**options), LIMITS, any_url), body, cuts)


@given(cuts=st.lists(st.integers(0, 10_000), max_size=10), priority=st.none() | st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_a_form_is_the_file_in_it(*, cuts: list[int], priority: int | None) -> None:
    """A form with a file and options is the same submission, with the same fingerprint."""
    options = {} if priority is None else {"priority": priority}
    said = [part("priority", str(priority).encode())] if priority else []
    body = form(*said, part("file", FILE, file_name="a.csv"))
    submission, alone = upload(body, cuts), read_file(FILE, **options)
    assert table_of(alone) == table_of(submission)
    assert (priority or 5, "csv") == (submission.priority, submission.format)
    assert alone.fingerprint == submission.fingerprint
    assert submission == upload(body, range(len(body)))


@pytest.mark.parametrize(
    ("name", "headers", "content", "kind"),
    [
        ("A.CSV", [], b"text\na", "csv"),
        ("a.jsonl", [], b'"a"', "ndjson"),
        ("a.ndjson", ["Content-Type: application/octet-stream"], b'"a"', "ndjson"),
        ("a.csv", ["Content-Type: application/vnd.ms-excel"], b"text\na", "csv"),
        ("data", [f"content-type: {NDJSON}"], b'"a"', "ndjson"),
        ("data", ['Content-Type: text/csv; charset="UTF-8"; header=absent'], b"a", "csv"),
        (None, ["Content-Type: text/csv"], b"text\na", "csv"),
    ],
)
def test_kinds_of_file(name: str | None, headers: list[str], content: bytes, kind: str) -> None:
    """The kind is that of the part's media type, or else of the file name."""
    submission = upload(form(part("file", content, *headers, file_name=name)))
    assert (["a"], kind) == (texts_of(submission), submission.format)


FINE = part("file", b"text\na", file_name="a.csv")


@pytest.mark.parametrize(
    ("parts", "options", "kind", "field"),
    [
        ([], {}, Unprocessable, "body.file"),
        ([part("priority", b"5")], {}, Unprocessable, "body.file"),
        ([FINE, part("priority", b"5")], {}, Unprocessable, "body"),
        ([FINE, FINE], {}, Unprocessable, "body"),
        ([part("colunm", b"a"), FINE], {}, Unprocessable, "body"),
        ([part("priority", b"10"), FINE], {}, Unprocessable, "body.priority"),
        ([part("priority", b"\xff"), FINE], {}, Unprocessable, "body.priority"),
        ([part("column", b"x" * 4097), FINE], {}, Unprocessable, "body"),
        ([part("column", b"a\0"), FINE], {}, Unprocessable, "body.column"),
        ([part("priority", b"5")] * 2 + [FINE], {}, Unprocessable, "body.priority"),
        ([part("priority", b"5"), FINE], {"priority": 5}, Unprocessable, "body.priority"),
        ([part("file", b"text\na", file_name="a.xls")], {}, UnsupportedMedia, None),
        (
            [part("file", b"a", "Content-Type: text/csv; charset=utf-16")],
            {},
            UnsupportedMedia,
            None,
        ),
        (
            [part("file", b"a", "Content-Transfer-Encoding: base64", file_name="a.csv")],
            {},
            UnsupportedMedia,
            None,
        ),
        ([part("file", b"a", "X: y", "X: y", file_name="a.csv")], {}, Invalid, None),
        ([part("file", b"a", f"X: {'y' * 2000}", file_name="a.csv")], {}, Invalid, None),
        ([part("file", b"a", *[f"X{n}: y" for n in range(9)])], {}, Invalid, None),
        ([FINE.replace(b"form-data", b"attachment")], {}, Invalid, None),
        ([b"x" + FINE], {}, Invalid, None),
    ],
)
def test_refused_forms(
    parts: list[bytes], options: dict[str, Any], kind: type[DomainError], field: str | None
) -> None:
    """Wherever the body is split into parts."""
    for step in (1, 65536):
        body = form(*parts)
        with pytest.raises(kind) as refused:
            upload(body, range(0, len(body), step), **options)
        errors = getattr(refused.value, "errors", [])
        assert field == (errors[0].field if errors else None)


@pytest.mark.parametrize("cut", [1, 3, 5, 30])
def test_a_form_without_its_end(cut: int) -> None:
    """An incomplete form is rejected: the file could be incomplete."""
    with pytest.raises(Invalid, match="incomplete"):
        upload(form(FINE)[: -len(BOUNDARY) - cut])
