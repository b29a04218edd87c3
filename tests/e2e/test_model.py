"""A user's model, from a volume, in place of the one in the images."""

import json
from collections.abc import Iterator

import httpx
import pytest

from support.cluster import Object, User, edge, helm, kubectl, pods, upgrade

pytestmark = pytest.mark.e2e_full

NAME = "mine@2.0.0"
FILL = """
import msgspec, pathlib, shutil
from valence_ml import DEFAULT_MODEL, release

models = pathlib.Path("/models")
manifest, files = release.read(DEFAULT_MODEL)
manifest = msgspec.structs.replace(manifest, name="mine", version="2.0.0")
for name in ("mine", "truncated"):
    shutil.rmtree(models / name, ignore_errors=True)
    release.write(models / name, manifest, files)
weights = models / "truncated" / max(files, key=lambda name: len(files[name]))
weights.write_bytes(weights.read_bytes()[:-1])
"""
"""Writes a release with its own name, and one that fails its hash."""

CLAIM: Object = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "models"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
}


def filler(image: str) -> Object:
    """Return a pod that writes the releases to the volume, as a user's own pod would."""
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
    """A volume claim with a release in the folder `mine` and a bad one in `truncated`."""
    image = pods("inference")[0]["spec"]["containers"][0]["image"]
    for manifest in (CLAIM, filler(image)):
        kubectl("apply", "-f", "-", text=json.dumps(manifest))
    kubectl("wait", "pod/fill-models", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
    kubectl("delete", "pod", "fill-models", "--wait=true")
    yield "models"
    kubectl("delete", "pvc", "models", "--wait=false")


def test_own_model(claim: str, client: httpx.Client) -> None:
    """Both services score with it; with a truncated release the old pods go on serving."""
    user = User(client)
    chosen = (f"model.existingClaim={claim}", "model.directory=mine")
    try:
        upgrade(*chosen)
        with edge() as fresh:
            user.client = fresh
            assert NAME == user.analyze().json()["model"]
            task = user.finished(user.submit(["good", "bad"]), timeout=60)
            assert "completed" == task["status"]
            assert [NAME, NAME] == [result["model"] for result in task["results"]]
            output = helm(
                *("upgrade", "valence", "charts/valence", "--reuse-values", "--wait"),
                *("--timeout", "30s", "--set", "model.directory=truncated"),
                check=False,
            )
            assert "deadline" in output or "not ready" in output.lower(), output
            assert NAME == user.analyze().json()["model"]
    finally:
        upgrade("model.existingClaim=", "model.directory=")
