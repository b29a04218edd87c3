"""Reliability case 84, long form: the timing of six kinds of rejected logins."""

import random
import statistics
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from support.rows import query
from support.stack import PASSWORD, Stack

pytestmark = pytest.mark.faults

LOGIN = "/api/v1/auth/login"
SAMPLES = 200
MAX_DIFFERENCE = 0.10
FREELY = {"login_attempts": 1_000_000, "login_account_attempts": 1_000_000}


def _kinds(stack: Stack) -> dict[str, tuple[Callable[[], str], str]]:
    """Six kinds of failure, each as a username and a password."""
    names = {}
    for kind, change in (
        ("wrong password", None),
        ("disabled", "is_active = false"),
        ("no password", "password_hash = NULL"),
    ):
        names[kind] = stack.register().json()["username"]
        if change is not None:
            statement = f"UPDATE users SET {change} WHERE username = :name"
            query(stack.database_url, statement, name=names[kind])
    known = names["wrong password"]
    return {
        "wrong password": (lambda: known, "not the password"),
        "unknown": (lambda: f"nobody-{uuid.uuid4().hex[:8]}", PASSWORD),
        "disabled": (lambda: names["disabled"], PASSWORD),
        "no password": (lambda: names["no password"], PASSWORD),
        "over-long": (lambda: known, "x" * 5000),
        "impossible": (lambda: "\u2603" * 3, PASSWORD),
    }


@pytest.mark.slow_faults
def test_case_084_two_hundred_samples_of_six_kinds(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    """Medians differ by less than a tenth from that of a wrong password."""
    from scipy.stats import mannwhitneyu  # it takes a second, and each test process collects this

    stack = Stack(tmp_path, database_url, redis_url)
    seconds: dict[str, list[float]] = {}
    try:
        stack.start("auth", **FREELY)
        kinds = _kinds(stack)
        for turn in range(SAMPLES + 5):
            for kind in random.sample(list(kinds), len(kinds)):
                name, password = kinds[kind]
                form = {"username": name(), "password": password}
                started = time.perf_counter()
                answer = stack.client.post(stack.url(LOGIN), data=form)
                taken = time.perf_counter() - started
                assert 401 == answer.status_code
                if turn >= 5:  # what is first is slow
                    seconds.setdefault(kind, []).append(taken)
    finally:
        stack.close()
    base = seconds["wrong password"]
    for kind, samples in seconds.items():
        difference = statistics.median(samples) / statistics.median(base) - 1
        p = mannwhitneyu(samples, base).pvalue
        print(
            f"{kind:15} median {statistics.median(samples) * 1000:6.2f} ms"
            f" ({difference:+.1%}), Mann-Whitney p {p:.3f}"
        )
        assert abs(difference) < MAX_DIFFERENCE
