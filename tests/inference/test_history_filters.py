"""Filters and deletion of the history."""

from datetime import UTC, datetime
from typing import Any

import pytest

from support.stack import Account, Stack

HISTORY = "/api/v1/sentiment/history"
TEXTS = ("I love this product!", "This is terrible, very disappointed.", "50% off_season joy")


@pytest.fixture(scope="module")
def scored(stack: Stack) -> tuple[Account, datetime]:
    """A user with three texts in the history, and a time between the second and the third."""
    account = stack.account()
    for text in TEXTS[:2]:
        assert stack.post("/api/v1/sentiment/analyze", account, json={"text": text}).is_success
    between = datetime.now(UTC)
    assert stack.post("/api/v1/sentiment/analyze", account, json={"text": TEXTS[2]}).is_success
    return account, between


def _texts(stack: Stack, account: Account, **filters: Any) -> list[str]:
    answer = stack.get(HISTORY, account, params=filters)
    assert 200 == answer.status_code, answer.text
    return [item["text"] for item in answer.json()["items"]]


def test_sentiment_selects(stack: Stack, scored: tuple[Account, datetime]) -> None:
    """The result has only predictions with that label."""
    assert [TEXTS[1]] == _texts(stack, scored[0], sentiment="negative")


def test_times_select_from_included_to_excluded(
    stack: Stack, scored: tuple[Account, datetime]
) -> None:
    """`from` and `to` split the history at a time without overlap or gap."""
    account, between = scored
    assert [TEXTS[2]] == _texts(stack, account, **{"from": between.isoformat()})
    assert [TEXTS[1], TEXTS[0]] == _texts(stack, account, to=between.isoformat())


@pytest.mark.parametrize(("part", "found"), [("LOVE", 0), ("50% off_s", 2), ("0_ o", None)])
def test_part_of_the_text_selects(
    stack: Stack, scored: tuple[Account, datetime], part: str, found: int | None
) -> None:
    """`q` is case-insensitive, and its % and _ are literal."""
    expected = [] if found is None else [TEXTS[found]]
    assert expected == _texts(stack, scored[0], q=part)


def test_model_selects(stack: Stack, scored: tuple[Account, datetime]) -> None:
    """The result has only predictions of that model."""
    assert 3 == len(_texts(stack, scored[0], model="valence-default@1.0.0"))
    assert [] == _texts(stack, scored[0], model="valence-default@0.0.0")


@pytest.mark.parametrize(
    "query",
    [
        "q=%00",
        "q=",
        "from=yesterday",
        "from=2026-01-01",
        "sentiment=neutral",
        "limit=0",
        "color=red",
    ],
)
def test_bad_filter_is_refused(stack: Stack, account: Account, query: str) -> None:
    """An invalid filter gets 422, not the whole history."""
    assert 422 == stack.get(f"{HISTORY}?{query}", account).status_code


def test_delete_takes_what_the_filter_leaves_of_the_users_own(stack: Stack) -> None:
    """A deletion is limited to its filter and user; results of batches are kept."""
    account, other = stack.account(), stack.account()
    for user in (account, other):
        for text in TEXTS[:2]:
            assert stack.post("/api/v1/sentiment/analyze", user, json={"text": text}).is_success
    task = stack.finish(account, stack.submit(account, ["lovely", "awful"]))

    gone = stack.request("DELETE", f"{HISTORY}?sentiment=positive", headers=account.headers)
    assert (204, b"") == (gone.status_code, gone.content)
    assert ["awful", TEXTS[1]] == _texts(stack, account)
    assert 204 == stack.request("DELETE", HISTORY, headers=account.headers).status_code
    assert [] == _texts(stack, account)
    assert [TEXTS[1], TEXTS[0]] == _texts(stack, other)
    assert task["results"] == stack.task(account, task["task_id"])["results"]
