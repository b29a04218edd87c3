"""Install, upgrade, roll back and uninstall, also in another namespace and without helm."""

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import (
    CHART,
    ROOT,
    context,
    get,
    helm,
    kubectl,
    names,
    pods,
    ready,
    run,
    sql,
    until,
    upgrade,
)

OTHER = "valence-e2e"
SECRETS = ("valence-keyring", "valence-database", "valence-redis", "valence-admin")
KINDS = (
    "deployments,statefulsets,pods,services,configmaps,secrets,serviceaccounts,ingresses,"
    "networkpolicies,horizontalpodautoscalers,poddisruptionbudgets,persistentvolumeclaims,jobs"
)
SMALL = {"requests": {"cpu": "5m", "memory": "64Mi"}}
WITHOUT_INGRESS = {
    "target": {"kind": "Ingress"},
    "patch": "{$patch: delete, apiVersion: networking.k8s.io/v1, kind: Ingress, "
    "metadata: {name: any}}",
}


@contextlib.contextmanager
def forwarded(namespace: str, service: str) -> Iterator[int]:
    """Forward a local port to a service."""
    command = ["kubectl", "-n", namespace, "port-forward", f"service/valence-{service}", ":8000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            yield int(line.partition("127.0.0.1:")[2].split()[0])
        finally:
            process.terminate()


@pytest.fixture
def other() -> Iterator[str]:
    """Another restricted namespace, deleted after the test."""
    run("kubectl", "delete", "namespace", OTHER, "--ignore-not-found", "--wait=true")
    manifest = (
        (ROOT / "k8s" / "namespace.yaml").read_text().replace("name: valence", f"name: {OTHER}")
    )
    run("kubectl", "apply", "-f", "-", text=manifest)
    yield OTHER
    run("kubectl", "delete", "namespace", OTHER, "--wait=true")


def tag() -> str:
    """Return the tag of the running images."""
    image: str = pods("auth")[0]["spec"]["containers"][0]["image"]
    return image.rpartition(":")[2]


def small(*, auth: int = 1, inference: int = 1, worker: int = 1) -> str:
    """Return values of a trial with small resources and this many pods of each service."""
    web = {"resources": SMALL, "databasePoolSize": 3}
    fixed = {"resources": SMALL, "autoscaling": {"enabled": False}}
    server = {"resources": SMALL, "storage": {"size": "1Gi"}}
    return json.dumps(
        {
            "image": {"tag": tag()},
            "auth": {**web, "replicas": auth},
            "inference": {**web, **fixed, "replicas": inference},
            "batchWorker": {**fixed, "replicas": worker, "concurrency": 1},
            "migrate": {"resources": SMALL},
            "trial": {"enabled": True, "postgres": server, "valkey": server},
        }
    )


def remaining(namespace: str) -> set[str]:
    """Return the objects of a namespace, except those that Kubernetes creates itself."""
    found = get(KINDS, namespace=namespace)["items"]
    everything = {f"{o['kind']}/{o['metadata']['name']}" for o in found}
    return everything - {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}


@pytest.mark.e2e
def test_helm_test() -> None:
    started = time.monotonic()
    output = helm("test", "valence", "--timeout", "3m")
    assert output.count("Succeeded") == 3
    print(f"\nhelm test: {time.monotonic() - started:.0f} s")


@pytest.mark.e2e
def test_upgrade_and_rollback_keep_the_secrets() -> None:
    """An upgrade changes a value, a rollback restores it, and neither logs a user out."""
    before = {name: get("secret", name)["data"] for name in SECRETS}
    assert "kind: Secret" not in helm("get", "manifest", "valence")
    upgrade("auth.config.loginAttempts=7")
    container = pods("auth")[0]["spec"]["containers"][0]
    variables = {v["name"]: v["value"] for v in container["env"]}
    assert variables["VALENCE_LOGIN_ATTEMPTS"] == "7"
    helm("rollback", "valence", "--wait", "--timeout", "3m")
    until(lambda: ready("auth") >= 1, timeout=60, what="auth is ready")
    deployment = get("deployment", "valence-auth")["spec"]["template"]["spec"]
    assert "VALENCE_LOGIN_ATTEMPTS" not in {v["name"] for v in deployment["containers"][0]["env"]}
    assert {name: get("secret", name)["data"] for name in SECRETS} == before


@pytest.mark.e2e_full
def test_five_of_each_at_once_on_an_empty_database(other: str) -> None:
    """Pods start in any order: one migration runs, and all become ready."""
    started = time.monotonic()
    values = small(auth=5, inference=5, worker=5)
    command = ("install", "valence", str(CHART), "--values", "-", "--wait", "--timeout", "8m")
    helm(*command, namespace=other, text=values)
    assert [ready(n, namespace=other) for n in ("auth", "inference", "batch-worker")] == [5, 5, 5]
    logs = [
        kubectl("logs", name, "-c", "migrate", namespace=other)
        for name in names("auth", namespace=other)
    ]
    assert sum("Running upgrade  -> 0001" in log for log in logs) == 1
    assert all("schema_ready" in log for log in logs)
    restarts = sum(
        status["restartCount"]
        for pod in get("pods", namespace=other)["items"]
        for status in pod["status"]["containerStatuses"]
    )
    seconds = time.monotonic() - started
    print(f"\nfive pods of each service on an empty database: {seconds:.0f} s, {restarts} restarts")
    assert helm("test", "valence", "--timeout", "3m", namespace=other).count("Succeeded") == 3

    administrator = sql("SELECT id FROM users WHERE username = 'admin'", namespace=other)

    helm("uninstall", "valence", "--wait", namespace=other)
    kept = {f"Secret/{name}" for name in SECRETS}
    kept |= {f"PersistentVolumeClaim/data-valence-{name}-0" for name in ("postgres", "valkey")}
    until(lambda: remaining(other) == kept, timeout=90, what=f"only {kept} remain")

    # A second installation uses the kept Secrets and volumes.
    helm(*command, namespace=other, text=small())
    assert helm("test", "valence", "--timeout", "3m", namespace=other).count("Succeeded") == 3
    assert administrator == sql("SELECT id FROM users WHERE username = 'admin'", namespace=other)
    print("uninstalled: Secrets and volumes stay; installed again: the data is there")


@pytest.mark.e2e_full
def test_install_without_helm(other: str, checkout: Path) -> None:
    """The commands at the top of the overlay, one by one, in another namespace."""
    overlay = checkout / "k8s" / "install" / "overlays" / "kind"
    shutil.rmtree(overlay / "secrets", ignore_errors=True)
    path = overlay / "kustomization.yaml"
    lines = re.findall(r"^#   (.+)$", path.read_text(), re.MULTILINE)
    assert len(lines) == 4
    path.write_text(
        path.read_text()
        .replace("namespace: valence", f"namespace: {other}")
        # The host belongs to the installation under test.
        .replace("patches:", f"patches:\n  - {json.dumps(WITHOUT_INGRESS)}")
    )
    namespace = checkout / "k8s" / "namespace.yaml"
    namespace.write_text(namespace.read_text().replace("name: valence", f"name: {other}"))
    cluster = f"CLUSTER={context().removeprefix('kind-')}"
    started = time.monotonic()
    for line in lines:
        command = line.replace("certificate.sh valence", f"certificate.sh {other}")
        run("env", cluster, "sh", "-c", command, folder=checkout)
    for name in ("auth", "inference", "batch-worker"):
        kubectl(
            *("rollout", "status", f"deployment/valence-{name}", "--timeout=240s"), namespace=other
        )
    print(f"\nwithout helm: all ready after {time.monotonic() - started:.0f} s")
    script = str(CHART / "files" / "smoke.py")
    url = "http://127.0.0.1:{}"
    with forwarded(other, "auth") as auth, forwarded(other, "inference") as inference:
        output = run("python3", script, url.format(auth), url.format(inference))
    assert "PASS" in output
