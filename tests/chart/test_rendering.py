"""Which values render, and which are rejected with which message."""

import itertools
import json
import re
import shutil
import subprocess

import pytest
import yaml

from support.chart import (
    CHART,
    EXTERNAL,
    INSTALLATIONS,
    NOTHING,
    TRIAL,
    Object,
    changed,
    find_object,
    helm_template,
    objects,
    rendered,
)
from support.required import tool

HELMS = ("helm", "helm3")
SUPPORTED = ("1.30.0", "1.37.0")
"""The oldest supported version of Kubernetes, and the newest one with schemas to validate with."""


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_lint_is_strict(name: str, tmp_path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps(INSTALLATIONS[name]))
    command = [tool("helm"), "lint", "--strict", "--quiet", str(CHART), "--values", str(values)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.count("WARNING")) == (0, 0), result.stdout


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_helm_3_renders_the_same(name: str) -> None:
    """All objects are the same, except the random values of a trial's Secrets."""
    manifests = [objects(INSTALLATIONS[name], helm) for helm in HELMS]
    for manifest in itertools.chain.from_iterable(manifests):
        if manifest["kind"] == "Secret":
            manifest["stringData"] = sorted(manifest["stringData"])
    assert manifests[0] == manifests[1]


def test_render_is_not_random_where_secrets_exist() -> None:
    """Two renders are equal, so a GitOps tool changes nothing and logs no user out (case 101)."""
    first, second = helm_template(EXTERNAL), helm_template(EXTERNAL)
    assert (0, 0) == (first.returncode, second.returncode), first.stderr
    assert "kind: Deployment" in first.stdout
    assert first.stdout == second.stdout


def test_supported_versions_render_the_same_and_older_ones_do_not() -> None:
    """The manifests depend on no version; test_scanners validates them for each."""
    oldest, newest = (helm_template(EXTERNAL, version=version) for version in SUPPORTED)
    assert 0 == oldest.returncode, oldest.stderr
    assert rendered(EXTERNAL) == oldest.stdout == newest.stdout
    older = helm_template(EXTERNAL, version="1.29.14")
    assert 0 != older.returncode
    assert "requires kubeVersion: >=1.30.0-0" in older.stderr


def test_trial_secrets_are_hooks_outside_of_every_revision() -> None:
    """Upgrades, rollbacks and uninstalling do not touch them."""
    secrets = [o for o in objects(TRIAL) if o["kind"] == "Secret"]
    assert {s["metadata"]["name"] for s in secrets} == {
        "valence-keyring",
        "valence-database",
        "valence-redis",
        "valence-admin",
    }
    for secret in secrets:
        annotations = secret["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert annotations["helm.sh/resource-policy"] == "keep"
    without = objects(changed(TRIAL, "trial.generateSecrets", False))
    assert not [o for o in without if o["kind"] == "Secret"]


def test_services_accept_the_generated_keyring(tmp_path) -> None:
    from valence_common.keyring import Keyring

    path = tmp_path / "keyring.json"
    secret = find_object(objects(TRIAL), "Secret", "valence-keyring")
    path.write_text(secret["stringData"]["keyring.json"])
    assert len(Keyring(path).active().secret) == 32


def test_external_installation_brings_no_server_and_no_secret() -> None:
    assert not {"StatefulSet", "Secret", "ConfigMap"} & {
        o["kind"] for o in objects(EXTERNAL) if o["metadata"]["name"] != "valence-tests"
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "jwt.existingSecret is empty"),
        ({}, "database.existingSecret is empty"),
        ({}, "redis.existingSecret is empty"),
        (changed(EXTERNAL, "networkPolicy.database", []), "networkPolicy.database is empty"),
        (changed(EXTERNAL, "networkPolicy.redis", []), "networkPolicy.redis is empty"),
        (changed(EXTERNAL, "ingress.host", ""), "ingress.host is empty"),
        (changed(EXTERNAL, "ingress.tlsSecret", ""), "ingress.tlsSecret is empty"),
        (changed(EXTERNAL, "gateway.enabled", True), "gateway.parentRefs is empty"),
        (changed(EXTERNAL, "inference.autoscaling.minReplicas", 9), "minReplicas is greater"),
        (changed(EXTERNAL, "inference.autoscaling.maxReplicas", 40), "connections to Postgres"),
        (changed(TRIAL, "database.roles", {"auth": ""}), "database.roles.auth is empty"),
        (changed(TRIAL, "database.roles", None), "database.roles.owner is empty"),
        (changed(EXTERNAL, "auth.databasePoolSize", 50), "connections to Postgres"),
    ],
)
def test_wrong_combination_is_rejected_with_a_message(values: Object, message: str) -> None:
    result = helm_template(values)
    assert result.returncode != 0
    assert message in result.stderr


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("auth.replicsa", 2),
        ("auth.replicas", 0),
        ("auth.config.loginAttemts", 3),
        ("auth.config.loginAttempts", 0),
        ("inference.config.logLevel", "LOUD"),
        ("image.registry", "registry.example.com"),
        ("auth.image.digest", "latest"),
        ("jwt.existingSecret", "Not A Name"),
    ],
)
def test_schema_is_closed(path: str, value: object) -> None:
    """The error names a misspelt or invalid value."""
    result = helm_template(changed(EXTERNAL, path, value))
    assert result.returncode != 0
    assert path.rpartition(".")[2] in result.stderr


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    ("roles", "named"),
    [(None, 0), ({"owner": "", "auth": "", "inference": "", "worker": ""}, 0), ({}, 3)],
)
def test_roles_may_be_left_out(helm: str, roles: Object | None, named: int) -> None:
    """Without names the migration grants nothing: `null` empties all of them, `{}` none."""
    values = changed(EXTERNAL, "database.roles", roles)
    deployment = find_object(objects(values, helm), "Deployment", "valence-auth")
    (migrate,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert named == len([v for v in migrate["env"] if v["name"].endswith("_ROLE")])


def test_the_readme_creates_the_roles_of_a_trial() -> None:
    """The README's SQL is the SQL that a trial's Postgres runs."""
    [shown] = re.findall(
        r"```sql\n(.*?)```", (CHART / "README.in.md").read_text("utf-8"), re.DOTALL
    )
    script = find_object(objects(TRIAL), "ConfigMap", "valence-postgres")["data"]["10-roles.sql"]
    statements = [line for line in script.splitlines() if line and not line.startswith("\\")]
    assert sorted(statements) == sorted(shown.replace("'…'", ":'password'").splitlines())


def test_every_value_is_described() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(node: Object, path: str) -> list[str]:
        undescribed = [] if node.get("description") or not path else [path]
        for name, child in node.get("properties", {}).items():
            undescribed += walk(child, f"{path}.{name}")
        return undescribed

    assert walk(schema, "") == []
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) | {"global"} == set(schema["properties"])


def test_dev_values_only_override() -> None:
    """The values for development have no key that the chart's values lack."""

    def unknown(own: object, default: object, path: str) -> list[str]:
        if not isinstance(own, dict) or not isinstance(default, dict):
            return []
        return [f"{path}.{key}" for key in own if key not in default] + [
            problem
            for key in own.keys() & default.keys()
            for problem in unknown(own[key], default[key], f"{path}.{key}")
        ]

    default = yaml.safe_load((CHART / "values.yaml").read_text())
    own = yaml.safe_load((CHART / "values-dev.yaml").read_text())
    assert unknown(own, default, "") == []
    assert objects(own)


def test_labels_name_the_folder() -> None:
    """The component and the names of a template's objects are those of its folder."""
    for text in rendered(TRIAL).split("\n---\n"):
        source = text.partition("# Source: ")[2].partition("\n")[0]
        folder = source.split("/")[-2]
        manifest = yaml.safe_load(text)
        if manifest is None or folder in {"network", "secrets"}:
            continue
        assert manifest["metadata"]["labels"]["app.kubernetes.io/component"] == folder, source
        if folder != "edge":
            assert manifest["metadata"]["name"].startswith(f"valence-{folder}"), source


def test_names_follow_the_release() -> None:
    names = {o["metadata"]["name"] for o in yaml.safe_load_all(_named("blue")) if o}
    assert {"blue-valence-auth", "blue-valence-inference", "blue-valence-batch-worker"} <= names


def _named(release: str) -> str:
    result = helm_template(NOTHING, release=release)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("folder", ["base", "overlays/kind"])
def test_install_without_helm_builds(folder: str, tmp_path) -> None:
    """`kubectl kustomize` builds the rendered base and its overlays."""
    tool("kubectl")
    root = CHART.parents[1]
    shutil.copytree(root / "k8s", tmp_path / "k8s")
    secrets = tmp_path / "k8s" / "install" / "overlays" / "kind" / "secrets"
    subprocess.run([str(root / "k8s/install/secrets.sh"), str(secrets)], check=True)
    command = ["kubectl", "kustomize", str(tmp_path / "k8s" / "install" / folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    kinds = [o["kind"] for o in yaml.safe_load_all(result.stdout) if o]
    assert kinds.count("Deployment") == 3
    assert kinds.count("Secret") == (3 if folder != "base" else 0)
