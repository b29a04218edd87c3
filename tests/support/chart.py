"""The chart, rendered by helm for each way to install it, as dictionaries."""

import copy
import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from support.required import tool

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "valence"

Object = dict[str, Any]

EXTERNAL: Object = {
    "jwt": {"existingSecret": "my-jwt"},
    "database": {"existingSecret": "my-postgres"},
    "redis": {"existingSecret": "my-redis"},
    "networkPolicy": {
        "database": [{"ipBlock": {"cidr": "10.0.0.5/32"}}],
        "redis": [{"ipBlock": {"cidr": "10.0.0.6/32"}}],
    },
    "ingress": {"enabled": True, "host": "sentiment.example.com", "tlsSecret": "my-tls"},
}
"""Production: the user's own servers, Secrets and certificate."""

TRIAL: Object = {
    "trial": {"enabled": True},
    "ingress": {"enabled": True, "host": "valence.localhost", "tlsSecret": "valence-tls"},
}
"""A trial: everything is from the chart."""

EVERYTHING: Object = {
    **TRIAL,
    "model": {"existingClaim": "models", "directory": "mine-2.0.0"},
    "gateway": {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["a.example.com"]},
    "metrics": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "image": {"registry": "registry.example.com/team/", "pullSecrets": [{"name": "pull"}]},
    "auth": {"nodeSelector": {"disk": "ssd"}, "priorityClassName": "high"},
    "batchWorker": {"autoscaling": {"enabled": False}, "keda": {"enabled": True}},
    "admin": {"existingSecret": "my-admin", "username": "root"},
    "backup": {"enabled": True, "keep": 3},
    "oidc": {
        "enabled": True,
        "issuer": "https://id.example.com",
        "clientId": "valence",
        "redirectUrl": "https://valence.localhost/api/v1/auth/oidc/callback",
        "existingSecret": "my-oidc",
    },
    "trustedCA": {"existingConfigMap": "my-authorities", "key": "bundle.pem"},
    "webhooks": {"enabled": True, "allowHttp": True, "allowedNetworks": ["10.1.0.0/16"]},
}
"""All optional parts on."""

NOTHING: Object = {
    **EXTERNAL,
    "ingress": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "inference": {"autoscaling": {"enabled": False}},
    "batchWorker": {"autoscaling": {"enabled": False}},
    "metrics": {"annotations": False},
}
"""All optional parts off."""

INSTALLATIONS = {
    "external": EXTERNAL,
    "trial": TRIAL,
    "everything": EVERYTHING,
    "nothing": NOTHING,
}


def changed(values: Object, path: str, value: object) -> Object:
    """Return a copy of the values with one of them changed."""
    result = copy.deepcopy(values)
    parent = result
    *parents, name = path.split(".")
    for key in parents:
        parent = parent.setdefault(key, {})
    parent[name] = value
    return result


def helm_template(
    values: Object, helm: str = "helm", *, release: str = "valence", version: str = "1.34.0"
) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with these values, whether it succeeds or not."""
    command = [tool(helm), "template", release, str(CHART), "--namespace", "valence"]
    command += ["--kube-version", version, "--values", "-"]
    return subprocess.run(
        command, input=json.dumps(values), capture_output=True, text=True, check=False
    )


@functools.cache
def _rendered(values: str, helm: str) -> str:
    result = helm_template(json.loads(values), helm)
    assert result.returncode == 0, result.stderr
    return result.stdout


@functools.cache
def _parsed(values: str, helm: str) -> list[Object]:
    # The C loader takes a tenth of the time.
    documents = yaml.load_all(_rendered(values, helm), Loader=yaml.CSafeLoader)
    return [document for document in documents if document]


def rendered(values: Object, helm: str = "helm") -> str:
    """Return the manifests as text; the same values are rendered once in a process."""
    return _rendered(json.dumps(values, sort_keys=True), helm)


def objects(values: Object, helm: str = "helm") -> list[Object]:
    """Return the manifests as dictionaries, which the caller may change."""
    return copy.deepcopy(_parsed(json.dumps(values, sort_keys=True), helm))


def pods(manifests: list[Object]) -> dict[str, Object]:
    """Return the pods that the manifests create, by the name of the pod or of its controller."""
    controllers = {"Deployment", "StatefulSet", "Job", "CronJob"}
    return {
        manifest["metadata"]["name"]: _template(manifest)
        if manifest["kind"] in controllers
        else manifest
        for manifest in manifests
        if manifest["kind"] in controllers | {"Pod"}
    }


def _template(controller: Object) -> Object:
    spec: Object = controller["spec"]
    return dict(spec.get("jobTemplate", controller)["spec"]["template"])


def containers(pod: Object) -> list[Object]:
    """Return the containers of a pod, init containers included."""
    spec = pod["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def find_object(manifests: list[Object], kind: str, name: str) -> Object:
    """Return the one object of that kind and name."""
    [found] = [o for o in manifests if o["kind"] == kind and o["metadata"]["name"] == name]
    return found
