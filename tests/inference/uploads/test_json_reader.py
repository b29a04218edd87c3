"""JSON read in parts: the same result as the strict parser of whole bodies."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.uploads import limits, read_file, read_json, texts_of
from valence_common.problems import DomainError, Invalid, TooLarge, Unprocessable
from valence_common.web.strict_json import MAX_DEPTH, loads
from valence_inference.uploads.chunking import UploadLimits

PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(PLAIN, min_size=1, max_size=20).filter(lambda text: not text.isspace())
CUTS = st.lists(st.integers(0, 10_000), max_size=8)
TOKENS = [
    *('"texts"', '"priority"', ":", ",", "[", "]", "{", "}", '"a"', "7", " ", "nul", "null", "NaN"),
    *("\\", '"', "\ud7ff", '"\\u0074exts"', '"\\ud800"', '{"texts":["a"'),
]
NEARLY = st.lists(st.sampled_from(TOKENS), max_size=14).map("".join)


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=12),
    priority=st.none() | st.integers(1, 9),
    first=st.booleans(),
    escaped=st.booleans(),
    indent=st.none() | st.integers(0, 3),
    cuts=CUTS,
    chunk_texts=st.integers(1, 4),
)
@settings(max_examples=300, deadline=None)
def test_texts_and_options_come_back(
    *,
    texts: list[str],
    priority: int | None,
    first: bool,
    escaped: bool,
    indent: int | None,
    cuts: list[int],
    chunk_texts: int,
) -> None:
    """However they are written, in any order, and wherever the body is split."""
    options = {} if priority is None else {"priority": priority}
    value = options | {"texts": texts} if first else {"texts": texts} | options
    body = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
    submission = read_json(body, cuts, limits(chunk_texts=chunk_texts))
    assert texts == texts_of(submission)
    assert (priority or 5, "json", None) == (
        submission.priority,
        submission.format,
        submission.columns,
    )
    assert {None} == {chunk.rows for chunk in submission.chunks}


@given(body=NEARLY.map(str.encode) | st.binary(max_size=40), cuts=CUTS)
@settings(max_examples=600, deadline=None)
def test_anything_is_read_or_refused(body: bytes, cuts: list[int]) -> None:
    """Only a strict JSON value with the right fields is accepted, wherever it is split."""
    outcome = _outcome(body, cuts)
    assert _outcome(body, range(len(body))) == outcome
    if isinstance(outcome, list):
        value = loads(body)
        assert outcome == value["texts"]
        assert value.keys() <= {"texts", "priority", "webhook_url"}


def _outcome(body: bytes, cuts: Any) -> Any:
    try:
        return texts_of(read_json(body, cuts))
    except DomainError as refusal:
        return refusal.status, refusal.message, getattr(refusal, "errors", None)


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (b"{}", "body.texts", "missing"),
        (b'{"texts": []}', "body.texts", "too_short"),
        (b'{"texts": [ ]}', "body.texts", "too_short"),
        (b'{"texts": "x"}', "body.texts", "list_type"),
        (b'{"texts": {"0": "x"}}', "body.texts", "list_type"),
        (b'{"texts": ["x", 7, null]}', "body.texts.1", "string_type"),
        (b'{"texts": ["x", NaN]}', "body.texts.1", "string_type"),
        (b'{"texts": ["x", ["x"]]}', "body.texts.1", "string_type"),
        (b'{"texts": ["x", {"texts": ["x"]}]}', "body.texts.1", "string_type"),
        (b'{"texts": ["x", " \\n"]}', "body.texts.1", "blank"),
        (b'{"texts": ["x", "\\udfff"]}', "body.texts.1", "plain_text"),
        (b'{"texts": ["x", "yyyyyyyyyyy"]}', "body.texts.1", "string_too_long"),
        (b'{"texts": ["x", "' + b"y" * 200_000, "body.texts.1", "string_too_long"),
        (b'{"texts": ["1","2","3","4"]}', "body.texts", "too_long"),
        (b'{"texts": ["x"], "texts": ["x"]}', "body", "unique_keys"),
        (b'{"texts": ["x"], "texts": 7}', "body", "unique_keys"),
        (b'{"texts": ["x"], "priority": 0}', "body.priority", "greater_than_equal"),
        (b'{"texts": ["x"], "priority": 5.0}', "body.priority", "int_type"),
        (b'{"texts": ["x"], "priority": 1e999}', "body", "finite_number"),
        (b'{"texts": ["x"], "column": "x"}', "body", "extra_forbidden"),
        (b'{"unknown": "' + b"y" * 200_000, "body", "too_long"),
        (b'{"unknown": [' + b"1," * 200_000, "body", "too_long"),
        (b'[{"texts": ["x"]}]', "body", "model_type"),
    ],
)
def test_refusals_name_field_and_rule(body: bytes, field: str, rule: str) -> None:
    """The error contains nothing of the body."""
    for step in {1, 7, 65536} if len(body) < 1000 else {65536}:
        with pytest.raises(Unprocessable) as refused:
            read_json(body, range(0, len(body), step), limits(characters=10, texts=3))
        error = refused.value.errors[0]
        assert (field, rule) == (error.field, error.rule)
        assert "yyy" not in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"texts": ["x"',
        b'{"texts": ["x"]',
        b'{"texts": ["x",]}',
        b'{"texts": [,"x"]}',
        b'{"texts": ["x" "x"]}',
        b'{"texts": ["x"}',
        b'{"texts": ["x": "x"]}',
        b'{"texts": ["x", nul]}',
        b'{"texts": ["a\nb"]}',
        b'{"texts": ["\xff"]}',
        b'{"texts": ["\\x"]}',
        b'{"texts": ["x"]}]',
        b'{"texts": ["x"]} x',
        b'\xef\xbb\xbf{"texts": ["x"]}',
        b'{"texts": ["x"]}'.decode().encode("utf-16"),
        b"[" * (MAX_DEPTH + 1),
        b'{"unknown":' * 50_000,
    ],
)
def test_what_is_not_json_is_a_400(body: bytes) -> None:
    """Only an object is accepted, whatever the body begins with."""
    with pytest.raises(Invalid):
        read_json(body, [3, 5, 11, 13])


def test_space_is_no_content() -> None:
    """A body that is mostly white space takes little memory."""
    space = b" \n" * 500_000
    body = space.join([b"", b"{", b'"texts"', b":", b"[", b'"x"', b",", b'"y"', b"]", b"}", b""])
    assert ["x", "y"] == texts_of(read_json(body, range(0, len(body), 65536)))


def test_what_grows_when_it_is_stored_is_bounded() -> None:
    """JSON escapes a control character in six bytes; chunks may take twice the largest body."""
    body = ("text\n" + "\x01" * 500 + "\n").encode()
    with pytest.raises(TooLarge):
        read_file(body, limits=UploadLimits(10_000, 100_000, 500, 1_000))
    assert 1 == read_file(body, limits=UploadLimits(10_000, 100_000, 500, 2_000)).total
