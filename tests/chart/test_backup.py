"""The backup component: off by default, and on as a restricted job that reaches Postgres alone."""

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from support.chart import CHART, EXTERNAL, TRIAL, Object, helm_template, objects, only, pods

ON: Object = {**TRIAL, "backup": {"enabled": True, "keep": 3}}
NAME = "valence-backup"


def network() -> ModuleType:
    """The evaluation of policies beside us."""
    path = Path(__file__).with_name("test_network.py")
    spec = importlib.util.spec_from_file_location("chart_network", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_off_by_default() -> None:
    assert not [o for o in objects(TRIAL) if NAME in o["metadata"]["name"]]


def test_it_runs_the_script_as_it_stands() -> None:
    """One file, mounted so that it can be run, and no second run beside a first."""
    found = objects(ON)
    script = only(found, "ConfigMap", NAME)["data"]["backup.sh"]
    assert (CHART / "files/backup.sh").read_text("utf-8") == script
    job = only(found, "CronJob", NAME)["spec"]
    assert "Forbid" == job["concurrencyPolicy"]
    spec = pods(found)[NAME]["spec"]
    [container] = spec["containers"]
    assert ["/etc/valence/backup/backup.sh"] == container["command"]
    assert {"name": "BACKUP_KEEP", "value": "3"} in container["env"]
    [mounted] = [v["configMap"] for v in spec["volumes"] if "configMap" in v]
    assert 0o555 == mounted["defaultMode"]


def test_its_volume_outlives_the_release() -> None:
    """The chart's own, or the user's; no upgrade waits for it, and none makes it anew."""
    annotations = only(objects(ON), "PersistentVolumeClaim", NAME)["metadata"]["annotations"]
    assert "keep" == annotations["helm.sh/resource-policy"]
    assert "pre-install,pre-upgrade" == annotations["helm.sh/hook"]
    assert "hook-failed" == annotations["helm.sh/hook-delete-policy"]
    mine = {**EXTERNAL, "backup": {"enabled": True, "existingClaim": "my-backups"}}
    assert not [o for o in objects(mine) if o["kind"] == "PersistentVolumeClaim"]
    volumes = pods(objects(mine))[NAME]["spec"]["volumes"]
    assert {"claimName": "my-backups"} in [v.get("persistentVolumeClaim") for v in volumes]


def test_it_reaches_postgres_alone() -> None:
    """And nobody reaches it."""
    net = network().Net(objects(ON))
    ports = {number for own in net.ports.values() for number in own.values()} | {443, 53}
    others = [name for name in net.labels if name != NAME]
    out = {(o, p) for o, p in itertools.product(others, ports) if net.allows(NAME, o, p)}
    assert {("valence-postgres", 5432), ("dns", 53)} == out
    assert not [(o, p) for o, p in itertools.product(others, ports) if net.allows(o, NAME, p)]
    elsewhere = network().Net(objects({**EXTERNAL, "backup": {"enabled": True}}))
    assert elsewhere.allows(NAME, "10.0.0.5/32", 5432)
    assert not elsewhere.allows(NAME, "10.0.0.6/32", 6379)


def test_the_work_fits_into_its_limit() -> None:
    """A pod that fills its own folder is told so by Postgres, not evicted."""
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["backup"]
    limit = values["resources"]["limits"]["ephemeral-storage"]
    assert int(values["workSize"].removesuffix("Gi")) < int(limit.removesuffix("Gi"))


@pytest.mark.parametrize(("value", "wrong"), [("keep", 0), ("workSize", "big"), ("nope", 1)])
def test_what_makes_no_sense_is_refused(value: str, wrong: object) -> None:
    result = helm_template({**TRIAL, "backup": {"enabled": True, value: wrong}})
    assert result.returncode != 0
    assert value in result.stderr
