"""The short form of chaos: every kind of fault once, at a fixed seed; `make chaos` is the long."""

from pathlib import Path

import pytest

from chaos.run import SHORT, run

pytestmark = pytest.mark.faults

SEED = 118


def test_case_118_nothing_is_lost_or_doubled_in_chaos(tmp_path: Path) -> None:
    """Two workers of two processes, 60 chunks; all that was accepted comes out exactly once."""
    verdict = run(SHORT, SEED, tmp_path)
    print(verdict.line())
    assert verdict.whole, verdict.line()
