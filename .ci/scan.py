"""`make check` asks bandit, detect-secrets and pip-audit, each on its own in its pinned version.

What they find must be waived in waivers.toml, by a line with a reason and a date; a waiver that
waives nothing is refused too. What could not be looked at is called "not proven", never fine.
"""

import json
import os
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
WAIVERS = Path(__file__).with_name("waivers.toml")
BANDIT, DETECTOR, AUDITOR = "bandit==1.9.4", "detect-secrets==1.5.0", "pip-audit==2.10.1"
SOURCES = ("services", "ml", "cli", "alembic", "charts", ".ci")
GENERATED = r"^requirements\.lock$|\.npz$|\.tsv$"  # hashes, weights and other people's sentences


class Finding(NamedTuple):
    """What a tool says against a file or a package."""

    tool: str
    rule: str
    where: str
    text: str


class Report(NamedTuple):
    """What a tool found, and what it could not look at."""

    tool: str
    findings: list[Finding]
    looked_at: str
    not_proven: str = ""


class ToolMissingError(Exception):
    """The tool could not be fetched, or did not run."""


def bandit(uv: str) -> Report:
    """Ask bandit about all that is shipped."""
    out = _run(uv, BANDIT, "bandit", "-q", "-r", *SOURCES, "-f", "json")
    findings = [
        Finding("bandit", r["test_id"], r["filename"].removeprefix("./"), r["issue_text"])
        for r in out["results"]
    ]
    lines = out["metrics"]["_totals"]["loc"]
    return Report("bandit", findings, f"{lines} lines")


def detect_secrets(uv: str) -> Report:
    """Ask detect-secrets about every file of the repository."""
    listed = ("git", "ls-files", "-co", "--exclude-standard")
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in files.stdout.splitlines() if (ROOT / name).is_file()]
    arguments = ("detect-secrets", "scan", "--exclude-files", GENERATED, *names)
    out = _run(uv, DETECTOR, *arguments)
    findings = [
        Finding("detect-secrets", found["type"], name, f"line {found['line_number']}")
        for name, several in out["results"].items()
        for found in several
    ]
    return Report("detect-secrets", findings, f"{len(names)} files")


def pip_audit(uv: str) -> Report:
    """Ask pip-audit about every package of the lock."""
    lock = ("--disable-pip", "--require-hashes", "-r", "requirements.lock")
    return read_audit(_run(uv, AUDITOR, "pip-audit", *lock, "-f", "json"))


def read_audit(out: dict[str, Any]) -> Report:
    """It exits 0 for packages that it skipped: they are counted here."""
    packages = out["dependencies"]
    skipped = [package for package in packages if "skip_reason" in package]
    findings = [
        Finding("pip-audit", advisory["id"], package["name"], package["version"])
        for package in packages
        for advisory in package.get("vulns", [])
    ]
    why = f"no advisories to be had here for {len(skipped)} of {len(packages)} packages"
    return Report("pip-audit", findings, f"{len(packages)} packages", why if skipped else "")


def judge(reports: list[Report], waivers: list[dict[str, Any]]) -> list[str]:
    """Sentences about what must be changed: findings that are not waived, waivers that are idle."""
    wrong = []
    used: set[int] = set()
    for finding in (finding for report in reports for finding in report.findings):
        matching = {n for n, waiver in enumerate(waivers) if _covers(waiver, finding)}
        used |= matching
        if not matching:
            wrong.append(f"{finding.tool}: {finding.rule} in {finding.where}: {finding.text}")
    asked = {report.tool for report in reports if not report.not_proven}
    for number, waiver in enumerate(waivers):
        name = f"{waiver.get('tool')} {waiver.get('rule')} in {waiver.get('where')}"
        if not waiver.get("reason") or not isinstance(waiver.get("date"), date):
            wrong.append(f"waivers.toml: {name} needs a reason and a date")
        elif waiver["tool"] in asked and number not in used:
            wrong.append(f"waivers.toml: {name} waives nothing: remove it")
    return wrong


def _covers(waiver: dict[str, Any], finding: Finding) -> bool:
    same = (waiver.get("tool"), waiver.get("rule")) == (finding.tool, finding.rule)
    return same and fnmatch(finding.where, str(waiver.get("where")))


def _run(uv: str, package: str, *command: str) -> dict[str, Any]:
    """The JSON that a tool prints; their exit codes only repeat whether they found something."""
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
        raise ToolMissingError(last[:200]) from None
    return out


def main(uv: str) -> int:
    """Ask all three at once and say what they say."""
    asked = {"bandit": bandit, "detect-secrets": detect_secrets, "pip-audit": pip_audit}
    reports, missing = [], []
    with ThreadPoolExecutor() as pool:
        for tool, pending in [(name, pool.submit(ask, uv)) for name, ask in asked.items()]:
            try:
                reports.append(pending.result())
            except ToolMissingError as error:
                missing.append(tool)
                print(f"{tool}: not proven (it did not run: {error})")
    wrong = judge(reports, tomllib.loads(WAIVERS.read_text("utf-8"))["waiver"])
    for report in reports:
        if report.not_proven:
            print(f"{report.tool}: not proven ({report.not_proven})")
        else:
            print(f"{report.tool}: asked about {report.looked_at}")
    for sentence in wrong:
        print(sentence)
    # On a developer's train the code's own scanners may be out of reach, in CI they may not.
    needed = {"bandit", "detect-secrets"} if os.environ.get("CI") else set()
    return 1 if wrong or needed & set(missing) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
