"""Security scanners of `make check`: bandit, detect-secrets and pip-audit, in pinned versions.

A finding fails the check unless waivers.toml covers it. A waiver has a reason, a date and the exact
number of findings that it covers, so that a new finding of the same kind fails. A scanner that
could not examine something is reported as "not proven". With `CI` set, a scanner that did not run
fails the check; one without its advisories fails it where `VALENCE_REQUIRE` names `advisories`.
"""

import json
import os
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
WAIVERS = Path(__file__).with_name("waivers.toml")
BANDIT, DETECTOR, AUDITOR = "bandit==1.9.4", "detect-secrets==1.5.0", "pip-audit==2.10.1"
SOURCES = ("services", "ml", "cli", "tools", "alembic", "charts", ".ci")
GENERATED = r"^requirements\.lock$|\.npz$|\.tsv$"  # hashes, weights and public data sets


class Finding(NamedTuple):
    """What a scanner reports about a file or a package."""

    tool: str
    rule: str
    where: str
    text: str


class Report(NamedTuple):
    """The findings of a scanner, and what it could not examine."""

    tool: str
    findings: list[Finding]
    examined: str
    not_proven: str = ""


class ToolError(Exception):
    """The scanner could not be fetched or did not run."""


def bandit(uv: str) -> Report:
    """Scan all code that is shipped."""
    return read_bandit(_run(uv, BANDIT, "bandit", "-q", "-r", *SOURCES, "-f", "json"))


def read_bandit(out: dict[str, Any]) -> Report:
    """Return bandit's report; a file that it could not parse is a finding."""
    findings = [
        Finding("bandit", r["test_id"], r["filename"].removeprefix("./"), r["issue_text"])
        for r in out["results"]
    ]
    findings += [
        Finding("bandit", "error", e["filename"].removeprefix("./"), e["reason"])
        for e in out["errors"]
    ]
    lines = out["metrics"]["_totals"]["loc"]
    return Report("bandit", findings, f"{lines} lines", "" if lines else "it found no source")


def detect_secrets(uv: str) -> Report:
    """Scan every file of the repository."""
    listed = ("git", "ls-files", "-co", "--exclude-standard")
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in files.stdout.splitlines() if (ROOT / name).is_file()]
    arguments = ("detect-secrets", "scan", "--exclude-files", GENERATED, *names)
    out = _run(uv, DETECTOR, *arguments)
    findings = [
        Finding("detect-secrets", secret["type"], name, f"line {secret['line_number']}")
        for name, secrets in out["results"].items()
        for secret in secrets
    ]
    return Report("detect-secrets", findings, f"{len(names)} files")


def pip_audit(uv: str) -> Report:
    """Look up the advisories of every package of the lock."""
    lock = ("--disable-pip", "--require-hashes", "-r", "requirements.lock")
    return read_audit(_run(uv, AUDITOR, "pip-audit", *lock, "-f", "json"))


def read_audit(out: dict[str, Any]) -> Report:
    """Return pip-audit's report; it exits 0 even if it skipped packages."""
    packages = out["dependencies"]
    skipped = [package for package in packages if "skip_reason" in package]
    findings = [
        Finding("pip-audit", advisory["id"], package["name"], package["version"])
        for package in packages
        for advisory in package.get("vulns", [])
    ]
    if not packages:
        not_proven = "it examined no package"
    elif skipped:
        not_proven = f"no advisories available for {len(skipped)} of {len(packages)} packages"
    else:
        not_proven = ""
    return Report("pip-audit", findings, f"{len(packages)} packages", not_proven)


def judge(reports: list[Report], waivers: list[dict[str, Any]]) -> list[str]:
    """Return sentences about findings without a waiver, and about waivers that do not fit."""
    problems = []
    covered: dict[int, list[Finding]] = defaultdict(list)
    for finding in (finding for report in reports for finding in report.findings):
        number = next((n for n, waiver in enumerate(waivers) if _covers(waiver, finding)), None)
        if number is None:
            problems.append(f"{finding.tool}: {finding.rule} in {finding.where}: {finding.text}")
        else:
            covered[number].append(finding)
    complete = {report.tool for report in reports if not report.not_proven}
    for number, waiver in enumerate(waivers):
        name = f"waivers.toml: {waiver.get('tool')} {waiver.get('rule')} in {waiver.get('where')}"
        findings, count = covered[number], waiver.get("count")
        if (
            not waiver.get("reason")
            or not isinstance(waiver.get("date"), date)
            or not isinstance(count, int)
        ):
            problems.append(f"{name} needs a reason, a date and a count")
        elif len(findings) > count:
            problems.append(
                f"{name} covers {count} findings, but there are {len(findings)}: "
                f"{_places(findings)}; fix the new ones, or examine them and raise the count"
            )
        elif waiver["tool"] in complete and not findings:
            problems.append(f"{name} covers nothing: remove it")
        elif waiver["tool"] in complete and len(findings) < count:
            problems.append(f"{name} covers only {len(findings)} findings: lower its count")
    return problems


def _covers(waiver: dict[str, Any], finding: Finding) -> bool:
    same = (waiver.get("tool"), waiver.get("rule")) == (finding.tool, finding.rule)
    return same and fnmatch(finding.where, str(waiver.get("where")))


def _places(findings: list[Finding]) -> str:
    counts = Counter(finding.where for finding in findings)
    return ", ".join(f"{where} ({count})" for where, count in sorted(counts.items()))


def _run(uv: str, package: str, *command: str) -> dict[str, Any]:
    """Return the JSON that a scanner prints; its exit code only says whether it found something."""
    done = subprocess.run(
        (uv, "tool", "run", "--quiet", "--from", package, *command),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        out: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip() or "it printed nothing").splitlines()[-1]
        raise ToolError(last[:200]) from None
    return out


def main(uv: str) -> int:
    """Run the scanners in parallel, print what they found, and return the exit code."""
    scanners = {"bandit": bandit, "detect-secrets": detect_secrets, "pip-audit": pip_audit}
    reports, not_run, not_proven = [], [], []
    with ThreadPoolExecutor() as pool:
        for tool, future in [(name, pool.submit(scan, uv)) for name, scan in scanners.items()]:
            try:
                report = future.result()
            except ToolError as error:
                not_run.append(f"{tool}: not proven (it did not run: {error})")
                continue
            reports.append(report)
            if report.not_proven:
                not_proven.append(f"{tool}: not proven ({report.not_proven})")
            else:
                print(f"{tool}: examined {report.examined}")
    problems = judge(reports, tomllib.loads(WAIVERS.read_text("utf-8"))["waiver"])
    for line in (*problems, *not_run, *not_proven):
        print(line)
    # A developer can be offline; CI must not be green without the scanners.
    failed = not_run and os.environ.get("CI")
    unproven = not_proven and "advisories" in os.environ.get("VALENCE_REQUIRE", "").split(",")
    return 1 if problems or failed or unproven else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
