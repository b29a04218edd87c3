"""Reliability case 77, long form: a thousand sessions, two replicas of each service."""

from pathlib import Path

import pytest

from support.rotation import Traffic, drill, log_in
from support.stack import Stack

pytestmark = pytest.mark.faults

SESSIONS = 1000


@pytest.mark.slow_faults
def test_case_077_a_thousand_sessions(
    tmp_path: Path, own_database_url: str, redis_url: str
) -> None:
    """Not one of their requests is refused, whichever replica signed and whichever verifies."""
    stack = Stack(tmp_path / "stack", own_database_url, redis_url)
    try:
        for name in ("auth", "inference") * 2:
            stack.start(name, ready=False)
        for service in stack.services:
            service.wait_ready(timeout=60)
        with Traffic(stack, log_in(stack, SESSIONS), clients=16) as traffic:
            drill(stack, traffic, timeout=600)
        print(f"\n{SESSIONS} sessions, {traffic.requests} requests, refused: {traffic.refused()}")
        assert {} == traffic.refused()
        assert traffic.requests > 10 * SESSIONS
    finally:
        stack.close()
