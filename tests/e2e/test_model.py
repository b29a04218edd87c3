"""A model of the user's own, from a volume, in place of the one that the images carry."""

import json
from collections.abc import Iterator

import httpx
import pytest

from support.cluster import Object, User, edge, helm, kubectl, pods, upgrade

pytestmark = pytest.mark.e2e_full

FILL = """
import shutil
from valence_ml import DEFAULT_MODEL
shutil.copytree(DEFAULT_MODEL, "/models/mine", dirs_exist_ok=True)
"""
CLAIM: Object = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "models"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
}


def filler(image: str) -> Object:
    """A pod that puts a release on the volume, as a user would from their own image."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "fill",
        "image": image,
        "command": ["python", "-c", FILL],
        "securityContext": security,
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
    }
    pod_security = {
        "runAsNonRoot": True,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "fill-models"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": pod_security,
            "containers": [container],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
        },
    }


@pytest.fixture
def claim() -> Iterator[str]:
    """A volume claim with a release in the folder `mine`."""
    image = pods("inference")[0]["spec"]["containers"][0]["image"]
    for manifest in (CLAIM, filler(image)):
        kubectl("apply", "-f", "-", text=json.dumps(manifest))
    kubectl("wait", "pod/fill-models", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
    kubectl("delete", "pod", "fill-models", "--wait=true")
    yield "models"
    kubectl("delete", "pvc", "models", "--wait=false")


def test_own_model(claim: str, client: httpx.Client) -> None:
    """Both who score serve it; a folder that is no release keeps the old pods serving."""
    user = User(client)
    chosen = (f"model.existingClaim={claim}", "model.directory=mine")
    try:
        upgrade(*chosen)
        for component in ("inference", "batch-worker"):
            folder = kubectl(
                *("exec", pods(component)[0]["metadata"]["name"], "--"),
                *("python", "-c", "import os; print(os.environ['VALENCE_MODEL_DIR'])"),
            )
            assert "/models/mine" == folder.strip()
        with edge() as fresh:
            user.client = fresh
            assert 200 == user.analyze().status_code
            task = user.finished(user.submit(["good", "bad"]), timeout=60)
            assert "completed" == task["status"]
            said = helm(
                *("upgrade", "valence", "charts/valence", "--reuse-values", "--wait"),
                *("--timeout", "30s", "--set", "model.directory=nothing-there"),
                check=False,
            )
            assert "deadline" in said or "not ready" in said.lower(), said
            assert 200 == user.analyze().status_code
    finally:
        upgrade("model.existingClaim=", "model.directory=")
