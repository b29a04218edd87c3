"""The chart as the real helm renders it, turned into dictionaries."""

import copy
import functools
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

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
"""Production: servers, secrets and a certificate of the user's own."""

TRIAL: Object = {
    "trial": {"enabled": True},
    "ingress": {"enabled": True, "host": "valence.localhost", "tlsSecret": "valence-tls"},
}
"""Everything from the chart."""

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
    """A copy of the values with one of them changed."""
    result = copy.deepcopy(values)
    place = result
    *folders, name = path.split(".")
    for folder in folders:
        place = place.setdefault(folder, {})
    place[name] = value
    return result


def helm_template(
    values: Object, helm: str = "helm", *, release: str = "valence", flags: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """`helm template` with these values; the caller looks at how it went."""
    command = [helm, "template", release, str(CHART), "--namespace", "valence", *flags]
    command += ["--kube-version", "1.34.0", "--values", "-"]
    return subprocess.run(
        command, input=json.dumps(values), capture_output=True, text=True, check=False
    )


@functools.cache
def _rendered(values: str, helm: str) -> str:
    result = helm_template(json.loads(values), helm)
    assert result.returncode == 0, result.stderr
    return result.stdout


def rendered(values: Object, helm: str = "helm") -> str:
    """The manifests as text; rendered once for the same values."""
    return _rendered(json.dumps(values, sort_keys=True), helm)


def objects(values: Object, helm: str = "helm") -> list[Object]:
    """The manifests as dictionaries."""
    return [each for each in yaml.safe_load_all(rendered(values, helm)) if each]


def pods(found: list[Object]) -> dict[str, Object]:
    """Every pod that the objects would make, by the name of its maker: its metadata and spec."""
    makers = {"Deployment", "StatefulSet", "Job", "CronJob"}
    return {
        each["metadata"]["name"]: _template(each) if each["kind"] in makers else each
        for each in found
        if each["kind"] in makers | {"Pod"}
    }


def _template(maker: Object) -> Object:
    spec: Object = maker["spec"]
    return dict(spec.get("jobTemplate", maker)["spec"]["template"])


def containers(pod: Object) -> list[Object]:
    """A pod's containers, those of its start included."""
    spec = pod["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def only(found: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (one,) = [o for o in found if o["kind"] == kind and o["metadata"]["name"] == name]
    return one
