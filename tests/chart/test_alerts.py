"""The alerts: those of the chart are those of the pages, and query series that exist."""

import json
import re
import subprocess
from pathlib import Path

import yaml

from support.chart import EVERYTHING, ROOT, TRIAL, Object, changed, find_object, objects
from support.required import tool

KUBE_STATE_METRICS = {"kube_cronjob_status_last_successful_time"}
"""Series of kube-state-metrics that the alerts query; stable since its version 2.0."""


def rules(values: Object) -> list[Object]:
    """Return the rules of the chart's PrometheusRule."""
    [group] = find_object(objects(values), "PrometheusRule", "valence")["spec"]["groups"]
    return list(group["rules"])


def documented(page: str) -> list[Object]:
    """Return the alerts that a page shows as YAML."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    alerts = [yaml.safe_load(block) for block in blocks if "alert:" in block]
    return [alert for block in alerts for alert in block]


def summaries(alerts: list[Object]) -> list[tuple[str, str, str | None]]:
    """Return the name, expression and duration of each alert."""
    return [(a["alert"], " ".join(a["expr"].split()), a.get("for")) for a in alerts]


def test_rules_are_those_of_the_pages() -> None:
    """All of them, with the same names; the alert for backups only if they are enabled."""
    operations, backup = documented("docs/operations.md"), documented("docs/backup.md")
    assert (2, 1) == (len(operations), len(backup))
    assert summaries(operations + backup) == summaries(rules(EVERYTHING))
    without = changed(EVERYTHING, "backup.enabled", False)
    assert summaries(operations) == summaries(rules(without))
    assert not [o for o in objects(TRIAL) if o["kind"] == "PrometheusRule"]


def test_every_series_in_them_exists() -> None:
    """ARCHITECTURE.md lists Valence's, and another test compares that list with the code."""
    ours = set(re.findall(r"`(valence_\w+)`", (ROOT / "ARCHITECTURE.md").read_text("utf-8")))
    queried = {
        name.removesuffix("_total")
        for rule in rules(EVERYTHING)
        for name in re.findall(r"\b(?:valence|kube)_\w+", re.sub(r"{.*?}", "", rule["expr"]))
    }
    assert KUBE_STATE_METRICS < queried <= ours | KUBE_STATE_METRICS


def test_promtool_accepts_them(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    spec = find_object(objects(EVERYTHING), "PrometheusRule", "valence")["spec"]
    file.write_text(json.dumps(spec))
    command = [tool("promtool"), "check", "rules", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == result.returncode, result.stdout + result.stderr
    assert "3 rules found" in result.stdout
