"""NDJSON read in parts: whole lines, as strict as a JSON body."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.uploads import limits, read_file, rows_of, texts_of
from valence_common.problems import Unprocessable
from valence_inference.uploads.upload import NDJSON, Submission

PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(PLAIN, min_size=1, max_size=20).filter(lambda text: not text.isspace())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(PLAIN, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(PLAIN, max_size=4), inner),
    max_leaves=6,
)
OBJECTS = st.tuples(TEXTS, st.dictionaries(st.text("abc\u2028é", max_size=3), VALUES, max_size=3))


def read(body: bytes, cuts: object = (), **options: object) -> Submission:
    return read_file(body, cuts, kind=NDJSON, **options)


@given(
    lines=st.lists(TEXTS | OBJECTS, min_size=1, max_size=10),
    escaped=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n", " \n\t\n"]),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_every_line_comes_back(
    *,
    lines: list[str | tuple[str, dict[str, object]]],
    escaped: bool,
    end: str,
    bom: bool,
    cuts: list[int],
) -> None:
    """Texts and all other fields are unchanged; columns are in the order of their first use."""
    values = [line if isinstance(line, str) else {"text": line[0], **line[1]} for line in lines]
    body = end.join(json.dumps(value, ensure_ascii=escaped) for value in values)
    submission = read((b"\xef\xbb\xbf" if bom else b"") + body.encode(), cuts)
    assert [v if isinstance(v, str) else v["text"] for v in values] == texts_of(submission)
    expected = [
        {k: v for k, v in value.items() if k != "text"} or None if isinstance(value, dict) else None
        for value in values
    ]
    assert expected == rows_of(submission)
    names = list(dict.fromkeys(n for value in values if isinstance(value, dict) for n in value))
    assert (names or None) == submission.columns
    assert (names.index("text") if names else None) == submission.text_column


def test_another_field_may_hold_the_texts() -> None:
    """`column` names it."""
    submission = read(b'{"id": 1, "body": "good"}\n{"body": "bad", "text": "x"}', column="body")
    assert ["good", "bad"] == texts_of(submission)
    assert (["id", "body", "text"], 1) == (submission.columns, submission.text_column)


@pytest.mark.parametrize(
    ("body", "row", "rule", "line"),
    [
        (b'"fine"\n\n7\n', 1, "row_type", 3),
        (b'"fine"\n["x"]\n', 1, "row_type", 2),
        (b"null", 0, "row_type", 1),
        (b'{"texts": "fine"}', 0, "missing", 1),
        (b'"fine"\n{"text": 7}', 1, "string_type", 2),
        (b'"fine"\n{"text": null}', 1, "string_type", 2),
        (b'"fine"\n" "', 1, "blank", 2),
        (b'"fine"\n"yyyyyyyyyyy"', 1, "string_too_long", 2),
        (b'"1"\n"2"\n"3"\n"4"', 3, "too_long", 4),
        (b'\n"1"\n \t\n\r\n\n"2"', 1, "too_many_blank", 5),
        (b'"fine"\n{"text": "x", "a": NaN}', 1, "finite_number", 2),
        (b'"fine"\n{"text": "x", "a": 1e999}', 1, "finite_number", 2),
        (b'"fine"\n{"text": "x", "text": "y"}', 1, "unique_keys", 2),
        (b'"fine"\n"\\ud800"', 1, "plain_text", 2),
        (b'"fine"\n{"text": "x", "a": ["\\u0000"]}', 1, "plain_text", 2),
        (b'"fine"\n"x\0"', 1, "json", 2),
        (b'"fine"\n"\xff"', 1, "json", 2),
        (b'"fine"\n"open', 1, "json", 2),
        (b'"fine" "fine"', 0, "json", 1),
        (b'{"text": "x", "a": ' + b"[" * 32 + b"]" * 32 + b"}", 0, "json", 1),
        (b'{"text": "x", "a": "' + b"y" * 1_100_000, 0, "row_too_long", 1),
        (json.dumps({"text": "x"} | {f"c{n}": n for n in range(200)}).encode(), 0, "too_long", 1),
        (json.dumps({"text": "x", "y" * 201: 1}).encode(), 0, "string_too_long", 1),
    ],
)
def test_the_first_bad_line_is_named(body: bytes, row: int, rule: str, line: int) -> None:
    """The error has the row's index and line, never its content."""
    for step in {1, 7, 65536} if len(body) < 1000 else {65536}:
        with pytest.raises(Unprocessable) as refused:
            read(body, range(0, len(body), step), limits=limits(characters=10, texts=3))
        (error,) = refused.value.errors
        assert (f"body.rows.{row}", rule) == (error.field, error.rule)
        assert error.message.startswith(f"Line {line}: ")
        assert "yyy" not in error.message


def test_a_file_without_rows_is_rejected() -> None:
    """A file of blank lines has no rows."""
    with pytest.raises(Unprocessable) as refused:
        read(b"\xef\xbb\xbf\n \r\n")
    assert ("body.rows", "too_short") == refused.value.errors[0][:2]


@pytest.mark.parametrize("option", ["header", "delimiter"])
def test_csv_options_are_rejected(option: str) -> None:
    """`header` and `delimiter` are rejected."""
    with pytest.raises(Unprocessable) as refused:
        read(b'"fine"', **{option: {"header": "true", "delimiter": ","}[option]})
    assert (f"query.{option}", "not_here") == refused.value.errors[0][:2]
