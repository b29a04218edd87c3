"""The backup component: disabled by default, else a restricted job that reaches only Postgres."""

import itertools

import pytest
import yaml

from support.chart import CHART, EXTERNAL, TRIAL, Object, find_object, helm_template, objects, pods
from support.network import Network

ENABLED: Object = {**TRIAL, "backup": {"enabled": True, "keep": 3}}
NAME = "valence-backup"


def test_it_is_off_by_default() -> None:
    assert not [o for o in objects(TRIAL) if NAME in o["metadata"]["name"]]


def test_it_runs_the_script_as_it_stands() -> None:
    """The script is mounted executable, and only one run may be in progress."""
    found = objects(ENABLED)
    script = find_object(found, "ConfigMap", NAME)["data"]["backup.sh"]
    assert (CHART / "files/backup.sh").read_text("utf-8") == script
    job = find_object(found, "CronJob", NAME)["spec"]
    assert "Forbid" == job["concurrencyPolicy"]
    spec = pods(found)[NAME]["spec"]
    [container] = spec["containers"]
    assert ["/etc/valence/backup/backup.sh"] == container["command"]
    assert {"name": "BACKUP_KEEP", "value": "3"} in container["env"]
    [mounted] = [v["configMap"] for v in spec["volumes"] if "configMap" in v]
    assert 0o555 == mounted["defaultMode"]


def test_its_volume_outlives_the_release() -> None:
    """The chart's volume or the user's; no upgrade waits for it or recreates it."""
    claim = find_object(objects(ENABLED), "PersistentVolumeClaim", NAME)
    annotations = claim["metadata"]["annotations"]
    assert "keep" == annotations["helm.sh/resource-policy"]
    assert "pre-install,pre-upgrade" == annotations["helm.sh/hook"]
    assert "hook-failed" == annotations["helm.sh/hook-delete-policy"]
    mine = {**EXTERNAL, "backup": {"enabled": True, "existingClaim": "my-backups"}}
    assert not [o for o in objects(mine) if o["kind"] == "PersistentVolumeClaim"]
    volumes = pods(objects(mine))[NAME]["spec"]["volumes"]
    assert {"claimName": "my-backups"} in [v.get("persistentVolumeClaim") for v in volumes]


def test_it_reaches_postgres_alone() -> None:
    """And no pod reaches it."""
    network = Network(objects(ENABLED))
    others = [name for name in network.labels if name != NAME]
    calls = [*itertools.product(others, network.numbers() | {443, 53})]
    reached = {call for call in calls if network.allows(NAME, *call)}
    assert {("valence-postgres", 5432), ("dns", 53)} == reached
    assert not [(name, port) for name, port in calls if network.allows(name, NAME, port)]
    assert set() == network.external(NAME)
    external = Network(objects({**EXTERNAL, "backup": {"enabled": True}}))
    assert {("10.0.0.5/32", 5432)} == external.external(NAME)


def test_the_work_fits_into_its_limit() -> None:
    """A full volume is an error of Postgres; exceeding the limit would evict the pod."""
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["backup"]
    limit = values["resources"]["limits"]["ephemeral-storage"]
    assert int(values["workSize"].removesuffix("Gi")) < int(limit.removesuffix("Gi"))


@pytest.mark.parametrize(("value", "wrong"), [("keep", 0), ("workSize", "big"), ("nope", 1)])
def test_wrong_values_are_rejected(value: str, wrong: object) -> None:
    result = helm_template({**TRIAL, "backup": {"enabled": True, value: wrong}})
    assert result.returncode != 0
    assert value in result.stderr
