"""What tests need of the machine. A test is skipped without it, or fails where it was promised.

`VALENCE_REQUIRE=helm,root` names what the caller promises: a comma-separated list, or `all`. The
last lines of each run name the tests that were skipped and those that passed only when rerun.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

NEEDS: Final = {
    "advisories": "an index of advisories that pip-audit reaches (.ci/scan.py)",
    "curl": "curl on PATH",
    "data": "the development files of the data sets, in the folder $VALENCE_TEST_DATA",
    "disk": "a small disk, mounted by root",
    "helm": "helm on PATH",
    "helm3": "helm 3 on PATH, as helm3",
    "history": "git's history of this repository (a full clone)",
    "jq": "jq on PATH",
    "kind": "a kind cluster as the current context of kubectl, with helm",
    "kubectl": "kubectl on PATH",
    "kube-score": "kube-score on PATH",
    "kubeconform": "kubeconform on PATH, with its schemas",
    "linux": "Linux",
    "namespaces": "root, and a kernel that gives it namespaces",
    "node": "node on PATH, with fetch (18 or newer)",
    "packages": "a package index that has the tools which run in environments of their own",
    "prometheus": "prometheus on PATH",
    "promtool": "promtool on PATH",
    "root": "the root user",
    "skaffold": "skaffold on PATH",
    "user": "a user that is not root",
}

_VARIABLE = "VALENCE_REQUIRE"
# Read when this is imported: no test sees the caller's VALENCE_ variables.
_asked = os.environ.get(_VARIABLE, "")
_data = os.environ.get("VALENCE_TEST_DATA", "")
_promised: set[str] = set()


def require(need: str, ok: object, reason: str) -> None:
    """Skip the test unless `ok`; fail it if `need` was promised. `reason` says what is missing."""
    assert need in NEEDS, f"add {need!r} to NEEDS"
    if ok:
        return
    message = f"{need}: {reason}"
    if need in _promised:
        pytest.fail(f"{message}; {_VARIABLE} promises it", pytrace=False)
    pytest.skip(message)


def tool(name: str, need: str = "") -> str:
    """Return the path of a command-line tool; skip or fail without it."""
    path = shutil.which(name)
    require(need or name, path, f"{name} is not on PATH")
    assert path is not None
    return path


def root() -> None:
    """Skip or fail unless root runs the tests."""
    require("root", os.geteuid() == 0, "only root can do this")


def data_file(name: str) -> Path:
    """Return the path of a development file of a data set; skip or fail without it."""
    path = Path(_data) / name
    require("data", _data and path.exists(), f"{name} is not in $VALENCE_TEST_DATA")
    return path


class Plugin:
    """Hands the promises to each test process, and ends the run with what was not tested."""

    def __init__(self, promised: str, data: str):
        names = {name.strip() for name in promised.split(",")} - {""}
        unknown = names - NEEDS.keys() - {"all"}
        if unknown:
            raise pytest.UsageError(f"{_VARIABLE} knows no {sorted(unknown)}; it knows {[*NEEDS]}")
        self.promised, self.data = ",".join(sorted(names)), data
        _promised.update(NEEDS if "all" in names else names)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node) -> None:
        node.workerinput |= {"promised": self.promised, "data": self.data}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        yield
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and not hasattr(session.config, "workerinput"):
            for line in closing_lines(reporter.stats):
                reporter.write_line(line, yellow=True)


def closing_lines(stats: dict[str, list[pytest.TestReport]]) -> list[str]:
    """What a reader of the last lines must know: tests not run, and tests that passed at last."""
    lines = []
    if skipped := stats.get("skipped", []):
        lines.append(f"Not tested here: {len(skipped)} skipped.")
        reasons: dict[str, Counter[str]] = {}
        for need, reason in map(_need, skipped):
            reasons.setdefault(need, Counter())[reason] += 1
        for need, counted in sorted(reasons.items()):
            [(reason, _), *rest] = counted.most_common()
            more = f"; {len(rest)} more reasons" if rest else ""
            lines.append(f"  {counted.total()} without {need} ({reason}{more})")
    failed = {report.nodeid for report in [*stats.get("failed", []), *stats.get("error", [])]}
    again = sorted({report.nodeid for report in stats.get("rerun", [])} - failed)
    if again:
        lines.append(f"Failed first and passed when run again: {len(again)}. Each is a fault:")
        lines += [f"  {name}" for name in again]
    return lines


def _need(report: pytest.TestReport) -> tuple[str, str]:
    """What a skipped test missed, and the reason for it."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    need, _, rest = reason.partition(": ")
    return (need, rest) if need in NEEDS else ("a need of a name", reason)


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest once, in each of its processes."""
    global _data  # noqa: PLW0603 - a test process is told what its caller's environment said
    passed = getattr(config, "workerinput", {})
    _data = passed.get("data", _data)
    config.pluginmanager.register(Plugin(passed.get("promised", _asked), _data), "required")
