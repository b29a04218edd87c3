"""`.ci/scan.py`: what the security tools say is judged, and what they skip is not called fine."""

import importlib.util
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci/scan.py"
DAY = date(2026, 11, 23)


@pytest.fixture(scope="module")
def scan() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scan", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _waiver(**changes: Any) -> dict[str, Any]:
    fields = {"tool": "t", "rule": "R1", "where": "a/*", "reason": "because", "date": DAY}
    return {name: value for name, value in (fields | changes).items() if value is not None}


def test_what_is_not_waived_is_told(scan: ModuleType) -> None:
    """A finding passes only by a waiver of its tool, its rule and its place."""
    report = scan.Report("t", [scan.Finding("t", "R1", "a/b/c.py", "bad")], "1 file")
    assert ["t: R1 in a/b/c.py: bad"] == scan.judge([report], [])
    assert [] == scan.judge([report], [_waiver()])
    for other in ({"tool": "u"}, {"rule": "R2"}, {"where": "b/*"}):
        assert "t: R1 in a/b/c.py: bad" in scan.judge([report], [_waiver(**other)])


@pytest.mark.parametrize("missing", [{"reason": ""}, {"date": None}, {"date": "2026-11-23"}])
def test_a_waiver_has_a_reason_and_a_date(scan: ModuleType, missing: dict[str, Any]) -> None:
    """Without them it is refused, even where it matches."""
    report = scan.Report("t", [scan.Finding("t", "R1", "a/b.py", "bad")], "1 file")
    [sentence] = scan.judge([report], [_waiver(**missing)])
    assert "needs a reason and a date" in sentence


def test_an_idle_waiver_is_refused(scan: ModuleType) -> None:
    """What it was for is gone; unless the tool could not look."""
    [sentence] = scan.judge([scan.Report("t", [], "1 file")], [_waiver()])
    assert "waives nothing" in sentence
    assert [] == scan.judge([scan.Report("t", [], "1 file", "offline")], [_waiver()])
    assert [] == scan.judge([], [_waiver()])


def test_skipped_packages_are_not_proven(scan: ModuleType) -> None:
    """pip-audit exits 0 for what it could not look up: that is no all-clear."""
    good = {"name": "a", "version": "1", "vulns": []}
    bad = {"name": "b", "version": "2", "vulns": [{"id": "CVE-2026-1"}]}
    skipped = {"name": "c", "skip_reason": "not found"}
    assert "" == scan.read_audit({"dependencies": [good]}).not_proven
    report = scan.read_audit({"dependencies": [good, bad, skipped]})
    assert "1 of 3 packages" in report.not_proven
    assert [("pip-audit", "CVE-2026-1", "b", "2")] == [tuple(f) for f in report.findings]


def test_tools_that_do_not_run_are_not_proven(
    scan: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Without a network a developer is told, and CI is stopped."""
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'error: no network' >&2\nexit 2\n")
    uv.chmod(0o700)
    monkeypatch.delenv("CI", raising=False)
    assert 0 == scan.main(str(uv))
    out = capsys.readouterr().out
    for tool in ("bandit", "detect-secrets", "pip-audit"):
        assert f"{tool}: not proven (it did not run: error: no network)" in out
    monkeypatch.setenv("CI", "true")
    assert 1 == scan.main(str(uv))
