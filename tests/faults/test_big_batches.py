"""The largest batch: taken in little memory, worked through whole, read in order."""

import time
from typing import Any

import pytest

from support.memory import forget_peak, peak_bytes
from support.rows import judge_batch
from support.stack import Account, Stack

pytestmark = pytest.mark.faults

MEBIBYTE = 1024 * 1024


def run(stack: Stack, account: Account, count: int, characters: int) -> dict[str, Any]:
    """Submit, watch and judge a batch; returns what was measured."""
    filler = "some words that are good and some that are bad " * (characters // 47)
    texts = [f"{n}: {filler}" for n in range(count)]
    body = sum(len(text) + 3 for text in texts)
    [inference] = stack.running("inference")
    before = forget_peak(inference.pid)
    started = time.monotonic()
    task_id = stack.submit(account, texts)
    accepted = time.monotonic() - started
    grown = peak_bytes(inference.pid) - before
    progress = [0.0]
    while progress[-1] < 1:
        progress.append(stack.task(account, task_id)["progress"])
        time.sleep(0.1)
    completed = time.monotonic() - started
    assert sorted(progress) == progress
    assert "completed" == stack.finish(account, task_id, timeout=5)["status"]
    judge_batch(stack.database_url, task_id, texts)
    measured = {"body": body, "grown": grown, "accepted": accepted, "completed": completed}
    print(measured)
    return measured


def test_case_057_batch_of_ten_thousand_texts(stack: Stack, account: Account) -> None:
    """The short form: memory stays within three bodies, every text comes out once."""
    measured = run(stack, account, 10_000, 800)
    assert measured["grown"] <= 3 * measured["body"] + 4 * MEBIBYTE


@pytest.mark.slow_faults
def test_case_057_batch_of_a_hundred_thousand_texts(stack: Stack, account: Account) -> None:
    """The long form: 202 within 3 s, memory within three bodies."""
    measured = run(stack, account, 100_000, 282)
    assert measured["accepted"] < 3
    assert measured["grown"] <= 3 * measured["body"]
