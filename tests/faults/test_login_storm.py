"""A hundred logins at once against one process: bounded, and nobody else's trouble."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from support.load import Timed, at_once, timed
from support.probes import probed
from support.stack import PASSWORD, Account, Stack

pytestmark = pytest.mark.faults

LOGIN = "/api/v1/auth/login"
ANALYZE = "/api/v1/sentiment/analyze"
LOGINS = 100
HASH_BYTES = 19 * 1024 * 1024
MEBIBYTE = 1024 * 1024


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@contextmanager
def _analyzing(stack: Stack, account: Account) -> Iterator[list[Timed]]:
    """One client that analyzes, one text after another."""
    stop, answers = threading.Event(), list[Timed]()
    url, body = stack.url(ANALYZE), {"text": "I love this product!"}

    def analyze() -> None:
        with httpx.Client(headers=account.headers, timeout=30, trust_env=False) as client:
            while not stop.wait(0.005):
                answers.append(timed(lambda: client.post(url, json=body)))

    thread = threading.Thread(target=analyze)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def _p95(answers: list[Timed]) -> float:
    return statistics.quantiles([answer.seconds for answer in answers], n=20)[-1]


def _requests(stack: Stack, names: list[str]) -> list[httpx.Request]:
    return [
        httpx.Request("POST", stack.url(LOGIN), data={"username": name, "password": PASSWORD})
        for name in names
    ]


@pytest.mark.slow_faults
def test_login_storm(stack: Stack, account: Account) -> None:
    """200 or 503 for each, memory of as many hashes as there are cores, analyze goes on."""
    [auth], cores = stack.running("auth"), psutil.cpu_count() or 1
    names = [stack.register().json()["username"] for _ in range(LOGINS)]
    with _analyzing(stack, account) as before:
        time.sleep(5)
    process = psutil.Process(auth.pid)
    Path(f"/proc/{auth.pid}/clear_refs").write_text("5")
    resting, worked = _peak_bytes(auth.pid), sum(process.cpu_times()[:2])
    with _analyzing(stack, account) as during, probed([auth]) as probes:
        started = time.monotonic()
        answers = at_once(_requests(stack, names))
        seconds = time.monotonic() - started
    worked = sum(process.cpu_times()[:2]) - worked
    grown = _peak_bytes(auth.pid) - resting
    good = [answer for answer in answers if answer.status == 200]
    print(
        f"\n{len(good)} of {LOGINS} logins in {seconds:.2f} s ({len(good) / seconds:.1f}/s),"
        f" {len(good) / worked:.1f}/s per core of auth"
        f"\nauth grew from {resting / MEBIBYTE:.0f} by {grown / MEBIBYTE:.0f} MiB;"
        f" slowest /livez {max(probes):.3f} s"
        f"\nanalyze p95 before {_p95(before) * 1000:.1f} ms ({len(before)}),"
        f" during {_p95(during) * 1000:.1f} ms ({len(during)})"
    )
    assert all(answer.status == 200 or answer.is_unavailable() for answer in answers)
    assert good
    assert {200} == {answer.status for answer in (*before, *during)}
    # One hash for each core, and room for a hundred connections.
    assert grown <= cores * HASH_BYTES + 48 * MEBIBYTE
