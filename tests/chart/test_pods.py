"""Rules for every pod: restricted, one plain process, secrets in files, known settings."""

import itertools
import re

import pytest

from support.chart import EVERYTHING, TRIAL, Object, containers, find_object, objects, pods
from valence_auth.settings import Settings as Auth
from valence_batch_worker.settings import Settings as Worker
from valence_common.settings import MigrationSettings
from valence_inference.settings import Settings as Inference

VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
SERVICES = {"valence-auth": Auth, "valence-inference": Inference, "valence-batch-worker": Worker}


def test_every_pod_is_restricted(installation: list[Object]) -> None:
    """Including hooks, init containers and the servers of a trial (case 99)."""
    for name, pod in pods(installation).items():
        spec = pod["spec"]
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert min(context["runAsUser"], context["runAsGroup"]) >= 10000, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(spec), name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["serviceAccountName"].startswith("valence-"), name
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= VOLUMES, (name, volume)
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            for kind in ("requests", "limits"):
                amounts = container["resources"][kind]
                assert set(amounts) == {"cpu", "memory", "ephemeral-storage"}, (name, kind)
            assert all("hostPort" not in port for port in container.get("ports", [])), name


def test_service_accounts_have_no_token(installation: list[Object]) -> None:
    accounts = [o for o in installation if o["kind"] == "ServiceAccount"]
    assert accounts
    assert all(account["automountServiceAccountToken"] is False for account in accounts)
    names = {account["metadata"]["name"] for account in accounts}
    assert {pod["spec"]["serviceAccountName"] for pod in pods(installation).values()} == names


def test_commands_are_plain_processes(installation: list[Object]) -> None:
    """Exec form without a shell, so that SIGTERM reaches the service (case 43)."""
    for name, pod in pods(installation).items():
        for container in containers(pod):
            command = container.get("command", []) + container.get("args", [])
            assert command, name
            assert not {"sh", "bash", "/bin/sh", "/bin/bash"} & set(map(str, command)), name


def test_probes_ask_different_questions(installation: list[Object]) -> None:
    for name in SERVICES:
        container = pods(installation)[name]["spec"]["containers"][0]
        assert container["startupProbe"]["httpGet"] == {"path": "/livez", "port": "internal"}
        assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "internal"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "internal"}
        assert {p["containerPort"] for p in container["ports"] if p["name"] == "internal"} == {9090}


def test_shutdown_fits_into_the_grace_period(installation: list[Object]) -> None:
    """preStop, drain and a margin."""
    for name, pod in pods(installation).items():
        if name not in SERVICES:
            continue
        container, grace = (
            pod["spec"]["containers"][0],
            pod["spec"]["terminationGracePeriodSeconds"],
        )
        if name == "valence-batch-worker":
            assert grace == 60
            continue
        drain = int(environment(container)["VALENCE_DRAIN_SECONDS"])
        assert grace >= container["lifecycle"]["preStop"]["sleep"]["seconds"] + drain + 10


def environment(container: Object) -> dict[str, str]:
    """Return the variables of a container, all of which are plain values."""
    return {variable["name"]: variable["value"] for variable in container.get("env", [])}


def test_no_secret_is_in_an_environment_or_a_command(installation: list[Object]) -> None:
    """Secrets are files (case 79)."""
    for pod in pods(installation).values():
        for container in containers(pod):
            assert "envFrom" not in container
            for variable in container.get("env", []):
                assert set(variable) == {"name", "value"}
                assert not re.search("://[^/]*@", variable["value"])


def test_secrets_go_where_they_are_needed() -> None:
    """Only auth and inference mount the keyring, only the migration the owner's URL (case 79)."""
    found = pods(objects(TRIAL))
    mounts = {
        (name, container["name"], mount["name"])
        for name, pod in found.items()
        for container in containers(pod)
        for mount in container.get("volumeMounts", [])
    }
    holders = {(pod, container) for pod, container, volume in mounts if volume == "keyring"}
    assert holders == {("valence-auth", "auth"), ("valence-inference", "inference")}
    owners = {(pod, container) for pod, container, volume in mounts if volume == "owner"}
    assert owners == {("valence-auth", "migrate")}
    urls = {}
    for name in SERVICES:
        (volume,) = [v for v in found[name]["spec"]["volumes"] if v["name"] == "secrets"]
        sources = [source["secret"] for source in volume["projected"]["sources"]]
        urls[name] = {s["name"]: [item["key"] for item in s["items"]] for s in sources}
    assert urls == {
        "valence-auth": {"valence-database": ["auth-url"], "valence-redis": ["url"]},
        "valence-inference": {"valence-database": ["inference-url"], "valence-redis": ["url"]},
        "valence-batch-worker": {"valence-database": ["worker-url"], "valence-redis": ["url"]},
    }


@pytest.mark.parametrize("name", SERVICES)
def test_variables_are_settings(name: str) -> None:
    """A pod sets only settings that its service has."""
    for values in (TRIAL, EVERYTHING):
        pod = find_object(objects(values), "Deployment", name)["spec"]["template"]
        for container in containers(pod):
            cls = SERVICES[name] if container["name"] in name else MigrationSettings
            known = {f"VALENCE_{field.upper()}" for field in cls.model_fields}
            known |= {"VALENCE_SECRETS_DIR", "PROMETHEUS_MULTIPROC_DIR", "SSL_CERT_FILE"}
            assert set(environment(container)) <= known, container["name"]


def test_settings_become_variables() -> None:
    """A component's settings override shared ones, and large numbers stay whole."""
    values = {
        **TRIAL,
        "config": {"logLevel": "WARNING", "redisTimeoutSeconds": 0.25},
        "auth": {"config": {"logLevel": "DEBUG"}},
        "inference": {"config": {"batchBodyBytes": 33554432, "historyRequired": False}},
    }
    found = pods(objects(values))
    variables = {name: environment(found[name]["spec"]["containers"][0]) for name in SERVICES}
    assert [variables[name]["VALENCE_LOG_LEVEL"] for name in SERVICES] == [
        "DEBUG",
        "WARNING",
        "WARNING",
    ]
    assert variables["valence-batch-worker"]["VALENCE_REDIS_TIMEOUT_SECONDS"] == "0.25"
    assert variables["valence-inference"]["VALENCE_BATCH_BODY_BYTES"] == "33554432"
    assert variables["valence-inference"]["VALENCE_HISTORY_REQUIRED"] == "false"


def test_services_always_answer_to_their_own_names() -> None:
    """`helm test` uses these names; without a list every host name is allowed."""
    for values, expected in (
        (TRIAL, None),
        (
            {**TRIAL, "allowedHosts": ["*.example.com"]},
            "*.example.com,valence-auth,valence-inference",
        ),
    ):
        found = pods(objects(values))
        for name in ("valence-auth", "valence-inference"):
            variables = environment(found[name]["spec"]["containers"][0])
            assert expected == variables.get("VALENCE_ALLOWED_HOSTS"), name


def test_the_users_model_is_mounted() -> None:
    found = pods(objects(EVERYTHING))
    for name in ("valence-inference", "valence-batch-worker"):
        container = found[name]["spec"]["containers"][0]
        assert environment(container)["VALENCE_MODEL_DIR"] == "/models/mine-2.0.0"
        (mount,) = [m for m in container["volumeMounts"] if m["name"] == "model"]
        assert mount == {"name": "model", "mountPath": "/models", "readOnly": True}


def test_the_users_authorities_are_mounted_everywhere() -> None:
    """One file in all containers except a trial's servers, and none without the value."""
    mount = {"name": "trust", "mountPath": "/etc/valence/ca", "readOnly": True}
    for values, named in ((EVERYTHING, True), (TRIAL, False)):
        for name, pod in pods(objects(values)).items():
            expected = named and name not in {"valence-postgres", "valence-valkey"}
            [*volume] = [v["configMap"] for v in pod["spec"]["volumes"] if v["name"] == "trust"]
            items = [{"key": "bundle.pem", "path": "ca.crt"}]
            assert [{"name": "my-authorities", "items": items}] * expected == volume, name
            for container in containers(pod):
                assert expected is (mount in container["volumeMounts"]), name
                file = environment(container).get("SSL_CERT_FILE")
                assert ("/etc/valence/ca/ca.crt" if expected else None) == file, name


def test_nodes_are_chosen_for_all_pods_at_once() -> None:
    """Including jobs, tests and servers; a component's values replace it."""
    mine = [{"key": "mine", "operator": "Exists"}]
    values = {
        **EVERYTHING,
        "nodeSelector": {"pool": "general"},
        "tolerations": [{"key": "general", "operator": "Exists"}],
        "auth": {"nodeSelector": {"disk": "ssd"}},
        "inference": {"tolerations": mine},
    }
    found = {name: pod["spec"] for name, pod in pods(objects(values)).items()}
    assert {"valence-postgres", "valence-backup", "valence-admin", "valence-tests-smoke"} <= set(
        found
    )
    assert {"disk": "ssd"} == found["valence-auth"]["nodeSelector"]
    assert mine == found["valence-inference"]["tolerations"]
    for name, spec in found.items():
        assert [{"name": "pull"}] == spec["imagePullSecrets"], name
        if name != "valence-auth":
            assert values["nodeSelector"] == spec["nodeSelector"], name
        if name != "valence-inference":
            assert values["tolerations"] == spec["tolerations"], name


def test_data_of_a_trial_is_on_its_volume() -> None:
    """At a fixed path: with another major version, Postgres must not start with an empty one."""
    spec = pods(objects(TRIAL))["valence-postgres"]["spec"]
    [container] = spec["containers"]
    folder = environment(container)["PGDATA"]
    assert "/var/lib/postgresql/18/docker" == folder
    [volume] = [m for m in container["volumeMounts"] if m["name"] == "data"]
    assert folder.startswith(f"{volume['mountPath']}/")


def test_images_take_registry_tag_and_digest() -> None:
    digest = "sha256:" + "0" * 64
    values = {
        **TRIAL,
        "image": {"registry": "registry.example.com/team/", "tag": "1.2.3"},
        "auth": {"image": {"digest": digest}},
        "migrate": {"image": {"tag": "1.2.4"}},
    }
    found = pods(objects(values))
    images = {
        container["name"]: container["image"]
        for container in itertools.chain.from_iterable(map(containers, found.values()))
    }
    assert images["auth"] == f"registry.example.com/team/valence-auth:1.2.3@{digest}"
    assert images["inference"] == "registry.example.com/team/valence-inference:1.2.3"
    assert images["migrate"] == "registry.example.com/team/valence-migrate:1.2.4"
    assert images["postgres"] == "postgres:18"
    assert images["valkey"] == "valkey/valkey:9"
