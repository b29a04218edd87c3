"""CSV read in parts: every cell of every row, or an error for the first invalid row."""

import csv
import io
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.uploads import LIMITS, any_url, limits, read_file, rows_of, table_of, texts_of
from valence_common.problems import Unprocessable
from valence_common.web.request_body import ContentType
from valence_inference.uploads.line_reader import LineReader
from valence_inference.uploads.options import BatchOptions
from valence_inference.uploads.upload import CSV, file_upload

ODD = st.sampled_from([",", ";", "\t", "|", '"', "\n", "\r", "\r\n", " ", "\u2028", "\x85", "\x0c"])
CELLS = st.lists(
    ODD | st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
).map("".join)
TEXTS = CELLS.filter(lambda text: bool(text) and not text.isspace())


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, list[list[str]]]:
    """The index of the text column, and rows of one width."""
    width = draw(st.integers(1, 5))
    place = draw(st.integers(0, width - 1))
    row = st.tuples(*[TEXTS if n == place else CELLS for n in range(width)]).map(list)
    return place, draw(st.lists(row, min_size=1, max_size=12))


@given(
    table=tables(),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
    chunk_texts=st.integers(1, 5),
)
@example(
    table=(0, [["a\r", "\n"]]),
    delimiter=",",
    quoting=csv.QUOTE_MINIMAL,
    bom=True,
    cuts=list(range(40)),
    chunk_texts=1,
)
@settings(max_examples=200, deadline=None)
def test_what_csv_writes_comes_back_cell_for_cell(
    *,
    table: tuple[int, list[list[str]]],
    delimiter: str,
    quoting: int,
    bom: bool,
    cuts: list[int],
    chunk_texts: int,
) -> None:
    """Whatever the cells contain and wherever the body is split."""
    place, rows = table
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=quoting).writerows(rows)
    body = (b"\xef\xbb\xbf" if bom else b"") + file.getvalue().encode()
    submission = read_file(
        body,
        cuts,
        limits=limits(chunk_texts=chunk_texts),
        header="false",
        delimiter="tab" if delimiter == "\t" else delimiter,
        column=str(place + 1),
    )
    assert rows == table_of(submission)
    assert [str(n + 1) for n in range(len(rows[0]))] == submission.columns
    starts = list(range(0, len(rows), chunk_texts))
    assert starts == [chunk.start for chunk in submission.chunks]
    assert len(rows) == submission.total


@given(
    rows=st.lists(st.tuples(st.text("ab ,;|'", min_size=1, max_size=9)), min_size=1, max_size=9),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_lines_end_in_any_way(rows: list[tuple[str]], end: str, *, last: bool) -> None:
    """LF, CR LF or CR; the last line may have none, and blank lines are skipped."""
    cells = [f"x{cell}" for (cell,) in rows]
    body = ("text" + end + end + end.join(f'"{cell}"' for cell in cells)) + (end if last else "")
    for cuts in ([], range(len(body))):
        submission = read_file(body.encode(), cuts)
        assert cells == texts_of(submission)
        assert (["text"], 0) == (submission.columns, submission.text_column)
        assert {None} == {chunk.rows for chunk in submission.chunks}


@pytest.mark.parametrize(
    ("options", "head", "columns", "place"),
    [
        ({}, "id,text,note", ["id", "text", "note"], 1),
        ({"column": "note"}, "id,text,note", ["id", "text", "note"], 2),
        ({"column": "1"}, "id,text,note", ["id", "text", "note"], 0),
        ({"column": "3"}, "3,text,note", ["3", "text", "note"], 0),
        ({"header": "false", "column": "3"}, None, ["1", "2", "3"], 2),
        ({"column": " b"}, 'a," b",c', ["a", " b", "c"], 1),
    ],
)
def test_the_column_of_the_texts(
    options: dict[str, str], head: str | None, columns: list[str], place: int
) -> None:
    """By its name, then by its number; by default `text`."""
    rows = ["one,two,three", "un,deux,trois"]
    body = "\n".join([head, *rows] if head else rows).encode()
    submission = read_file(body, **options)
    assert (columns, place) == (submission.columns, submission.text_column)
    assert [row.split(",") for row in rows] == table_of(submission)
    assert [[c for c in row.split(",") if c != row.split(",")[place]] for row in rows] == rows_of(
        submission
    )


@pytest.mark.parametrize(
    ("body", "field", "rule", "line"),
    [
        (b"text\nfine\n \n", "body.rows.1", "blank", 3),
        (b'text\nfine\n\n""\n', "body.rows.1", "blank", 4),
        (b"id,text\n1,fine\n2,fine,fine\n", "body.rows.1", "ragged", 3),
        (b"id,text\n1,fine\n2\n", "body.rows.1", "ragged", 3),
        (b'id,text\n1,"a\nb"\n2,"open\n\n', "body.rows.1", "csv", 4),
        (b'text\n"closed"x\n', "body.rows.0", "csv", 2),
        (b"text\nfine\nn\0ul\n", "body.rows.1", "plain_text", 3),
        (b"text\nfine\n\xff\n", "body.rows.1", "utf_8", 3),
        (b'text\n"a\nb"\n\xed\xa0\x80\n', "body.rows.1", "utf_8", 4),
        (b"text\nfine\n" + b"y" * 11, "body.rows.1", "string_too_long", 3),
        (b"text\n1\n2\n3\n4\n5\n6\n", "body.rows.5", "too_long", 7),
        (b"id,text\n1,a\rb\n", "body.rows.1", "ragged", 3),
        (b'text\n"' + b"y" * 1_100_000, "body.rows.0", "row_too_long", 2),
        (b'text\n"' + b"y\n" * 10_001, "body.rows.0", "too_many_lines", 2),
        (b"text\n\nfine\n\r\n\r\r\n\n\nfine", "body.rows.1", "too_many_blank", 8),
        (b"", "body.rows", "too_short", None),
        (b"\xef\xbb\xbf", "body.rows", "too_short", None),
        (b"text\n\n\n", "body.rows", "too_short", None),
        (b"a,b\n1,2\n", "column", "missing", None),
        (b"text,text\n1,2\n", "body.columns", "unique_columns", None),
        (b",".join(b"c%d" % n for n in range(201)), "body.columns", "too_long", None),
        (b"a" * 201, "body.columns", "string_too_long", None),
    ],
)
def test_the_first_invalid_row_is_named(
    body: bytes, field: str, rule: str, line: int | None
) -> None:
    """The error has the row's index and line, never its content."""
    steps = {1, 7, 65536} if len(body) < 1000 else {65536}
    for step in steps:
        with pytest.raises(Unprocessable) as refused:
            read_file(body, range(0, len(body), step), limits=limits(characters=10, texts=5))
        (error,) = refused.value.errors
        assert (field, rule) == (error.field, error.rule)
        assert line is None or error.message.startswith(f"Line {line}: ")
        assert "yyy" not in error.message


def test_an_invalid_row_is_rejected_when_it_arrives() -> None:
    """Before the end of the body."""
    with pytest.raises(Unprocessable, match="invalid fields"):
        read_file(b"text\nfine\n \n" + b"\xff" * 100, [12], delimiter=",")


@pytest.mark.parametrize("name", ["4", "0", "none", "-1", "\u0664"])
def test_unknown_columns(name: str) -> None:
    """Neither the name nor the number of a column."""
    with pytest.raises(Unprocessable) as refused:
        read_file(b"a,b,c\n1,2,3\n", column=name)
    assert "unknown_column" == refused.value.errors[0].rule


def test_quotes_within_a_cell_are_its_own() -> None:
    """Only a cell that begins with a quote is quoted."""
    body = b'id,text\n1,5" nails\n2, "spaced"\n3,"say ""hi"", twice"\n'
    assert ['5" nails', ' "spaced"', 'say "hi", twice'] == texts_of(read_file(body))


def test_row_of_many_lines_is_read_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it again with every part took a minute of a core for one upload."""
    taken, take = 0, LineReader.take

    def counted(lines: LineReader) -> bytes:
        nonlocal taken
        taken += 1
        return take(lines)

    monkeypatch.setattr(LineReader, "take", counted)
    height = 9_000
    body = b'text,more\na,"%b"\n' % (b"\n" * height)
    assert [["\n" * height]] == rows_of(read_file(body, range(0, len(body), 1_000)))
    assert taken < 3 * height


def test_row_of_many_lines_waits_in_its_own_size() -> None:
    """Between two parts, which can be minutes apart, it is not held as a list of lines."""
    upload = file_upload(ContentType(CSV, {}), BatchOptions(delimiter=","), LIMITS, any_url)
    part = b"\r\n" * 600
    tracemalloc.start()
    upload.feed(b'text,more\na,"' + part)
    for _ in range(14):
        upload.feed(part)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held <= 4 * 15 * len(part)


def test_short_lines_are_bounded() -> None:
    """Every line costs time, so their number is limited: per row, blank, and within quotes."""
    row = b'"' + b"\n" * 9_999 + b'",a\n'
    body = b"more,text\n" + b"\n" * 100_000 + row * 209
    assert 209 == read_file(body).total
    for more, rule in (
        (b'"' + b"\n" * 10_000 + b'",a\n', "too_many_lines"),
        (b"\n", "too_many_blank"),
        (row, "too_many_lines"),
    ):
        with pytest.raises(Unprocessable) as refused:
            read_file(body + more)
        assert ("body.rows.209", rule) == refused.value.errors[0][:2]
