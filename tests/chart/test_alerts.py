"""The alerts: the chart's are the pages', and ask for series that exist."""

import json
import re
import subprocess
from pathlib import Path

import yaml

from support.chart import EVERYTHING, ROOT, TRIAL, Object, changed, objects, only
from support.required import tool

KUBE_STATE_METRICS = {"kube_cronjob_status_last_successful_time"}
"""Of theirs, what we ask for; it has been stable since 2.0."""


def rules(values: Object) -> list[Object]:
    """What the chart's PrometheusRule says."""
    [group] = only(objects(values), "PrometheusRule", "valence")["spec"]["groups"]
    return list(group["rules"])


def documented(page: str) -> list[Object]:
    """The alerts that a page shows as YAML."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    alerts = [yaml.safe_load(block) for block in blocks if "alert:" in block]
    return [alert for block in alerts for alert in block]


def essence(alerts: list[Object]) -> list[tuple[str, str, str | None]]:
    """Name, expression and patience."""
    return [(a["alert"], " ".join(a["expr"].split()), a.get("for")) for a in alerts]


def test_rules_are_those_of_the_pages() -> None:
    """All of them, under the same names; the backup's only where there are backups."""
    operations, backup = documented("docs/operations.md"), documented("docs/backup.md")
    assert (2, 1) == (len(operations), len(backup))
    assert essence(operations + backup) == essence(rules(EVERYTHING))
    without = changed(EVERYTHING, "backup.enabled", False)
    assert essence(operations) == essence(rules(without))
    assert not [o for o in objects(TRIAL) if o["kind"] == "PrometheusRule"]


def test_every_series_in_them_exists() -> None:
    """ARCHITECTURE.md lists ours, which another test holds against the code."""
    ours = set(re.findall(r"`(valence_\w+)`", (ROOT / "ARCHITECTURE.md").read_text("utf-8")))
    asked = {
        name.removesuffix("_total")
        for rule in rules(EVERYTHING)
        for name in re.findall(r"\b(?:valence|kube)_\w+", re.sub(r"{.*?}", "", rule["expr"]))
    }
    assert KUBE_STATE_METRICS < asked <= ours | KUBE_STATE_METRICS


def test_prometheus_takes_them(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    spec = only(objects(EVERYTHING), "PrometheusRule", "valence")["spec"]
    file.write_text(json.dumps(spec))
    command = [tool("promtool"), "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "3 rules found" in done.stdout
