"""`.ci/scan.py`: findings fail unless waived, and what was not examined is not called fine."""

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
    fields = {"tool": "t", "rule": "R1", "where": "a/*", "count": 1, "reason": "why", "date": DAY}
    return {name: value for name, value in (fields | changes).items() if value is not None}


def _report(scan: ModuleType, *places: str, not_proven: str = "") -> Any:
    findings = [scan.Finding("t", "R1", where, "bad") for where in places]
    return scan.Report("t", findings, "1 file", not_proven)


def test_finding_without_a_waiver_fails(scan: ModuleType) -> None:
    """A waiver covers a finding of its tool, its rule and its place."""
    report = _report(scan, "a/b/c.py")
    assert ["t: R1 in a/b/c.py: bad"] == scan.judge([report], [])
    assert [] == scan.judge([report], [_waiver()])
    for other in ({"tool": "u"}, {"rule": "R2"}, {"where": "b/*"}):
        assert "t: R1 in a/b/c.py: bad" in scan.judge([report], [_waiver(**other)])


def test_new_finding_of_a_waived_kind_fails(scan: ModuleType) -> None:
    """A waiver covers exactly as many findings as it says."""
    [sentence] = scan.judge([_report(scan, "a/b.py", "a/b.py", "a/c.py")], [_waiver(count=2)])
    assert "covers 2 findings, but there are 3: a/b.py (2), a/c.py (1)" in sentence
    assert [] == scan.judge([_report(scan, "a/b.py", "a/c.py")], [_waiver(count=2)])
    [sentence] = scan.judge([_report(scan, "a/b.py")], [_waiver(count=2)])
    assert "covers only 1 findings: lower its count" in sentence


@pytest.mark.parametrize(
    "missing",
    [{"reason": ""}, {"date": None}, {"date": "2026-11-23"}, {"count": None}, {"count": "1"}],
)
def test_a_waiver_has_a_reason_a_date_and_a_count(
    scan: ModuleType, missing: dict[str, Any]
) -> None:
    """Without them it is an error, even where it matches."""
    [sentence] = scan.judge([_report(scan, "a/b.py")], [_waiver(**missing)])
    assert "needs a reason, a date and a count" in sentence


def test_an_unused_waiver_fails(scan: ModuleType) -> None:
    """Unless the scanner could not examine everything."""
    [sentence] = scan.judge([_report(scan)], [_waiver()])
    assert "covers nothing: remove it" in sentence
    assert [] == scan.judge([_report(scan, not_proven="offline")], [_waiver()])
    assert [] == scan.judge([], [_waiver()])


def test_file_that_bandit_cannot_parse_is_a_finding(scan: ModuleType) -> None:
    """bandit exits 0 and lists such files as errors."""
    error = {"filename": "./cli/x.py", "reason": "syntax error while parsing AST from file"}
    out = {"results": [], "errors": [error], "metrics": {"_totals": {"loc": 3}}}
    report = scan.read_bandit(out)
    [sentence] = scan.judge([report], [])
    assert sentence.startswith("bandit: error in cli/x.py: syntax error")
    assert "" == report.not_proven
    nothing = scan.read_bandit({"results": [], "errors": [], "metrics": {"_totals": {"loc": 0}}})
    assert "it found no source" == nothing.not_proven


def test_skipped_packages_are_not_proven(scan: ModuleType) -> None:
    """pip-audit exits 0 for packages without advisories, and for none at all."""
    good = {"name": "a", "version": "1", "vulns": []}
    bad = {"name": "b", "version": "2", "vulns": [{"id": "CVE-2026-1"}]}
    skipped = {"name": "c", "skip_reason": "not found"}
    assert "" == scan.read_audit({"dependencies": [good]}).not_proven
    assert "it examined no package" == scan.read_audit({"dependencies": []}).not_proven
    report = scan.read_audit({"dependencies": [good, bad, skipped]})
    assert "1 of 3 packages" in report.not_proven
    assert [("pip-audit", "CVE-2026-1", "b", "2")] == [tuple(f) for f in report.findings]


def test_tools_that_do_not_run_are_not_proven(
    scan: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Without a network a developer reads so, and CI fails."""
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


@pytest.mark.parametrize("tool", ["bandit", "detect_secrets", "pip_audit"])
def test_what_was_not_examined_fails_where_advisories_are_promised(
    scan: ModuleType, tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One scanner that could not examine everything is enough; elsewhere its line says so."""
    waivers = tmp_path / "waivers.toml"
    waivers.write_text("waiver = []\n")
    monkeypatch.setattr(scan, "WAIVERS", waivers)
    for name in ("bandit", "detect_secrets", "pip_audit"):
        why = "offline" if name == tool else ""
        report = scan.Report(name.replace("_", "-"), [], "1 file", why)
        monkeypatch.setattr(scan, name, lambda _, report=report: report)
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("VALENCE_REQUIRE", "linux")
    assert 0 == scan.main("uv")
    monkeypatch.setenv("VALENCE_REQUIRE", "linux,advisories")
    assert 1 == scan.main("uv")
