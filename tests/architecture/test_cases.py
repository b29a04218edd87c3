"""The table of cases in tests/acceptance/README.md is true and whole."""

import pytest

from support import cases


def test_table_is_the_tests() -> None:
    """Every test of a case is listed, and every listed one exists: run `make docs`."""
    assert cases.table() == cases.TABLE.read_text("utf-8")


@pytest.mark.parametrize("number", cases.TITLES)
def test_every_case_has_a_test_or_a_reason(number: int) -> None:
    """No case of parts A, B, D and E was forgotten."""
    reasons = (cases.ELSEWHERE, cases.LEFT)
    assert cases.numbered().get(number) or any(number in reason for reason in reasons)


@pytest.mark.parametrize("name", [n for names in cases.ELSEWHERE.values() for n in names])
def test_what_is_named_exists(name: str) -> None:
    """A test that proves a case under another name is still there."""
    file, _, test = name.partition("::")
    text = (cases.TESTS / file).read_text("utf-8")
    assert f"def {test or 'test_'}" in text
