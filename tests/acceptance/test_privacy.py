"""docs/privacy.md is true; reliability cases 13, 83 and 98 for data export and erasure."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support import credentials
from support.invariants import CheckedClient
from support.stack import PASSWORD, Account, Stack
from support.waiting import until
from valence_batch_worker.settings import Settings as WorkerSettings
from valence_common.models import Base

ME = "/api/v1/users/me"
PAGE = Path(__file__).parents[2] / "docs/privacy.md"
CANARY = "S3ntinel-heron-nest"


def test_the_page_names_every_table_and_no_other() -> None:
    """A new table is not stored before it is said what, why, how long and for whom."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(Base.metadata.tables) == sorted(name for name, _ in rows)
    for name, cells in rows:
        assert 4 == len([cell for cell in cells.split("|") if cell.strip()]), name


def test_the_page_says_how_long_as_the_settings_do() -> None:
    """Each retention with its default."""
    said = re.findall(r"`VALENCE_(RETAIN_\w+_DAYS)` \((\d+)\)", PAGE.read_text(encoding="utf-8"))
    fields = WorkerSettings.model_fields.items()
    expected = {name.upper(): str(f.default) for name, f in fields if name.startswith("retain_")}
    assert expected == dict(said)


def test_case_083_live_credentials_of_an_erased_account(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Token, refresh token and API key are refused everywhere within 5 s; its batch is unknown."""
    key = credentials.key(stack, account, ["analyze", "batch", "history"])
    task = stack.submit(account, [f"text {n}" for n in range(2_000)])
    answer = checked.request("DELETE", ME, headers=account.headers, json={"password": PASSWORD})
    assert 204 == answer.status_code
    assert 401 == checked.request("GET", ME, headers=account.headers).status_code
    for headers in (account.headers, key):
        for path in ("/api/v1/sentiment/history", f"/api/v1/sentiment/task/{task}"):
            until(
                lambda path=path, headers=headers: (
                    checked.request("GET", path, headers=headers).status_code == 401
                ),
                timeout=5,
                what=f"{path} refused",
            )
    refresh = json.dumps({"refresh_token": account.refresh_token})
    assert 401 == checked.post("/api/v1/auth/refresh", refresh).status_code


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"password": CANARY}, 401),
        ({"password": CANARY, "sure": True}, 422),
        ({"password": [CANARY]}, 422),
        ({"password": CANARY * 100}, 422),
        ({"password": None}, 401),
        ([CANARY], 422),
        (CANARY, 422),
    ],
)
def test_case_013_a_refused_erasure_echoes_nothing(
    checked: CheckedClient, account: Account, body: Any, status: int
) -> None:
    """Wrong, mistyped, too long: the password is in no answer and no log."""
    checked.secret(CANARY)
    answer = checked.request("DELETE", ME, headers=account.headers, json=body)
    assert status == answer.status_code
    assert 200 == checked.request("GET", ME, headers=account.headers).status_code


def test_case_098_taking_out_and_erasing_leave_nothing_in_logs(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Texts and names go through both; no log of any service holds them."""
    text = {"text": f"{CANARY} is good"}
    assert 200 == stack.post("/api/v1/sentiment/analyze", account, json=text).status_code
    assert CANARY in stack.get(f"{ME}/export", account).text
    answer = checked.request("DELETE", ME, headers=account.headers, json={"password": PASSWORD})
    assert 204 == answer.status_code
    for service in stack.services:
        for word in (CANARY, account.username, account.email):
            assert word not in service.output()


@pytest.mark.parametrize(("method", "path"), [("DELETE", ME), ("GET", f"{ME}/export")])
def test_an_api_key_neither_erases_nor_takes_out(
    stack: Stack, checked: CheckedClient, account: Account, method: str, path: str
) -> None:
    """It is made for programs; only who has logged in may do either."""
    key = credentials.key(stack, account, ["analyze", "batch", "history"])
    body = {"json": {"password": PASSWORD}} if method == "DELETE" else {}
    assert 401 == checked.request(method, path, headers=key, **body).status_code
