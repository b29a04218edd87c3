"""The largest file: taken in little memory, and nothing of it is lost on its way in and out."""

import csv
import io
import time
from typing import Any

import pytest

from support.memory import forget_peak, peak_bytes
from support.stack import Account, Stack

pytestmark = pytest.mark.faults

MEBIBYTE = 1024 * 1024
MOST_OUT = 32 * MEBIBYTE
"""Results go out a page at a time, however many there are."""
BATCH = "/api/v1/sentiment/analyze/batch"
HEAD = ["id", "ti,tle", "text", 'no"te']


def rows_of(count: int, characters: int) -> list[list[str]]:
    """Quotes, delimiters, line ends and what str.splitlines takes for one, in every cell."""
    odd = ['say ""hi""', "a,b;c\td|e", "two\r\nlines", "lone \r cr", "\u2028 \x85 é 🙂", '"']
    filler = "some words that are good and some that are bad " * (characters // 47)
    return [
        [str(n), odd[n % 6], f"{n}: {odd[(n + 1) % 6]} {filler}", odd[(n + 2) % 6] * (n % 3)]
        for n in range(count)
    ]


def written(rows: list[list[str]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([HEAD, *rows])
    return file.getvalue().encode()


def run(stack: Stack, account: Account, count: int, characters: int) -> dict[str, Any]:
    """Hand a file in, take its results out and hold them against it; returns what was measured."""
    rows = rows_of(count, characters)
    body = written(rows)
    [inference] = stack.running("inference")
    before = forget_peak(inference.pid)
    started = time.monotonic()
    answer = stack.post(BATCH, account, content=body, headers={"Content-Type": "text/csv"})
    accepted = time.monotonic() - started
    grown = peak_bytes(inference.pid) - before
    assert (202, count) == (answer.status_code, answer.json()["total"]), answer.text
    task_id = answer.json()["task_id"]
    assert "completed" == stack.finish(account, task_id, timeout=240)["status"]
    before, started = forget_peak(inference.pid), time.monotonic()
    results = stack.get(
        f"/api/v1/sentiment/task/{task_id}/results?format=csv", account, timeout=120
    )
    measured = {"body": len(body), "grown": grown, "accepted": accepted}
    measured |= {"out": time.monotonic() - started, "out_grown": peak_bytes(inference.pid) - before}
    _judge(results.content.decode(), rows)
    print(measured | {"bodies": round(grown / len(body), 2)})
    return measured


def _judge(results: str, rows: list[list[str]]) -> None:
    """Every cell of every row in its place, and an answer behind it."""
    head, *found = csv.reader(io.StringIO(results, newline=""))
    assert [*HEAD, "sentiment", "confidence", "low_confidence", "model", "error"] == head
    assert rows == [row[: len(HEAD)] for row in found]
    assert {(row[len(HEAD)], row[-1]) for row in found} <= {("positive", ""), ("negative", "")}


def test_case_020_a_file_of_ten_thousand_rows(stack: Stack, account: Account) -> None:
    """The short form: memory stays within three bodies, every cell comes back."""
    measured = run(stack, account, 10_000, 800)
    assert measured["grown"] <= 3 * measured["body"] + 4 * MEBIBYTE
    assert measured["out_grown"] <= MOST_OUT


@pytest.mark.slow_faults
def test_case_020_a_file_of_thirty_megabytes(stack: Stack, account: Account) -> None:
    """The long form, 95,000 rows: memory within three bodies."""
    measured = run(stack, account, 95_000, 282)
    assert 30 * 10**6 <= measured["body"] <= 32 * MEBIBYTE
    assert measured["grown"] <= 3 * measured["body"]
    assert measured["out_grown"] <= MOST_OUT
