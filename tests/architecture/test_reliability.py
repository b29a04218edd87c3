"""The tables of docs/reliability.md are true and complete."""

import re

import pytest
from tools import reliability

TEXT = reliability.PAGE.read_text("utf-8")
NUMBERS = list(reliability.rows(TEXT))


def test_tables_are_the_tests() -> None:
    """Every test of a case is listed, and every listed test exists: run `make docs`."""
    assert reliability.page(TEXT) == TEXT


def test_every_numbered_test_has_a_row() -> None:
    """The numbers in the names of tests are those of the page, each of which occurs once."""
    assert sorted(set(NUMBERS)) == NUMBERS
    assert set() == (reliability.numbered().keys() | reliability.ELSEWHERE.keys()) - set(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_case_has_a_test(number: int) -> None:
    """A case without a test is not in the tables, but named above them."""
    assert reliability.numbered().get(number) or reliability.ELSEWHERE.get(number)


@pytest.mark.parametrize("name", [n for names in reliability.ELSEWHERE.values() for n in names])
def test_what_is_named_exists(name: str) -> None:
    """A test that proves a case under another name is still there."""
    file, _, test = name.partition("::")
    text = (reliability.TESTS / file).read_text("utf-8")
    assert re.search(rf"^def {test or 'test_'}{'[(]' if test else ''}", text, re.MULTILINE)


def test_remarks_are_the_ones_that_the_page_explains() -> None:
    """Also: tests that need more than `make test` do get their remark."""
    explained = set(re.findall(r"^\| (\w+) \| ", TEXT, re.MULTILINE)) - {"remark", "number"}
    used = {
        word for words in re.findall(r"\.py\) \(([\w, ]+)\)", TEXT) for word in words.split(", ")
    }
    assert used <= explained
    assert {"cluster"} == reliability.remarks("e2e/test_keyring.py")
    assert {"helm"} == reliability.remarks("chart/test_pods.py")
    assert {"long"} == reliability.remarks("faults/test_login_storm.py::test_login_storm")
    killed = "faults/test_processes.py::test_case_041_killed_while_accepting_stores_all_or_nothing"
    assert {"faults"} == reliability.remarks(killed)
