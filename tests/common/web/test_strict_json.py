"""Strict JSON."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valence_common.problems import Invalid, Unprocessable
from valence_common.web.strict_json import MAX_DEPTH, loads

PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(PLAIN, max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
NEARLY = st.text('[]{}",:\\u0dD8e1.-+ NaInfity', max_size=30).map(str.encode)


@given(value=VALUES, escaped=st.booleans(), indent=st.none() | st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_agrees_with_the_standard_library(
    value: object, *, escaped: bool, indent: int | None
) -> None:
    """Strict JSON is parsed as the standard library parses it."""
    body = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
    assert json.loads(body) == loads(body)


@given(
    body=st.binary(max_size=60)
    | st.text('[]{}",:\\u0dD8e1.-+ NaInfity', max_size=30).map(str.encode)
)
@settings(max_examples=500, deadline=None)
def test_any_input_is_parsed_or_rejected(body: bytes) -> None:
    """Any bytes are a value or a domain error, and never more than json.loads accepts."""
    try:
        value = loads(body)
    except (Invalid, Unprocessable):
        return
    assert json.loads(body) == value
    json.dumps(value, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b'{"a": 1, "a": 2}', "unique_keys"),
        (b'[{"a": {"b": 1, "b": 1}}]', "unique_keys"),
        (b'{"a": 1, "\\u0061": 2}', "unique_keys"),
        (b"NaN", "finite_number"),
        (b"[Infinity]", "finite_number"),
        (b'{"a": -Infinity}', "finite_number"),
        (b"1e999", "finite_number"),
        (b"-1E400", "finite_number"),
        (b'"\\u0000"', "plain_text"),
        (b'{"\\u0000": 1}', "plain_text"),
        (b'[["\\ud800"]]', "plain_text"),
        (b'"\\uDFFF\\uD800"', "plain_text"),
        (b'{"a": {"\\udabc": [1]}}', "plain_text"),
    ],
)
def test_rejects_values_that_are_not_strict(body: bytes, rule: str) -> None:
    """Each error names its rule and nothing of the body."""
    with pytest.raises(Unprocessable) as refused:
        loads(body)
    (error,) = refused.value.errors
    assert ("body", rule) == (error.field, error.rule)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"nul",
        b"'a'",
        b"{a: 1}",
        b"[1,]",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x10",
        b"1 2",
        b"[1] x",
        b"\xef\xbb\xbf1",
        b"\xff",
        b'"\xed\xa0\x80"',
        b'"a\nb"',
        b'"a\0b"',
        b'"\\x41"',
        b'"\\u12"',
        b'"open',
        b"9" * 5000,
        "1".encode("utf-16"),
        b"// comment\n1",
    ],
)
def test_rejects_malformed_json(body: bytes) -> None:
    """A 400 whose detail quotes nothing."""
    with pytest.raises(Invalid) as refused:
        loads(body)
    assert "The request body is not valid JSON in UTF-8" == refused.value.message


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_limited(opening: bytes, closing: bytes) -> None:
    """32 levels are parsed, 33 are rejected, closed or not."""
    deep = opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH
    assert json.loads(deep) == loads(deep)
    for body in (opening + deep + closing, opening * (MAX_DEPTH + 1), opening * 50_000):
        with pytest.raises(Invalid, match="nested deeper"):
            loads(body)


@given(text=st.text(st.sampled_from('[]{}"\\a'), min_size=33, max_size=80))
def test_brackets_in_strings_do_not_nest(text: str) -> None:
    """However they are escaped."""
    assert [text, [text]] == loads(json.dumps([text, [text]]).encode())


def test_numbers_keep_their_type() -> None:
    """Integers stay exact and floats finite."""
    value = loads(b"[1, 1.0, 12345678901234567890, -0.0, 1e-400]")
    assert [1, 1.0, 12345678901234567890, -0.0, 0.0] == value
    assert [int, float, int, float, float] == [type(number) for number in value]
    assert -1 == math.copysign(1, value[3])


def test_large_bodies_are_parsed_completely() -> None:
    """A body of megabytes has the same value as a small one."""
    texts = [f'text {n} \u2603 \\ "' for n in range(50_000)]
    assert {"texts": texts} == loads(json.dumps({"texts": texts}).encode())


@pytest.mark.parametrize("body", [b"[" + b"1," * 200_001 + b"1]", b"[" + b"[]," * 100_001 + b"[]]"])
def test_too_many_values_are_rejected_before_parsing(body: bytes) -> None:
    """A list of nothing takes far more memory than its bytes."""
    with pytest.raises(Invalid, match="more than 200000 values"):
        loads(body)
