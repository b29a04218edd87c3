"""What other people's tools say about the manifests; every waiver has its reason here."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from support.chart import INSTALLATIONS, ROOT, objects, rendered
from support.required import require, tool

SCHEMAS = os.environ.get("KUBECONFORM_SCHEMAS", "default")
"""Where kubeconform finds its schemas: a folder, or its own place on the net."""

TOLERATED = {
    "CKV_K8S_15": "Always would pull images that `kind load` put there; tags are not moved.",
    "CKV_K8S_21": "The namespace is the installer's choice, `helm template` names it in no object.",
    "CKV_K8S_43": "Digests are the user's to pin, `*.image.digest`; a default could not be kept.",
    "CKV_K8S_35": "No secret is in an environment: POSTGRES_PASSWORD_FILE names a file.",
}
"""checkov's ids that the manifests do not meet."""

OPERATORS = "HTTPRoute,PodMonitor,PrometheusRule,ScaledObject,TriggerAuthentication"
"""Kinds that Kubernetes itself does not know."""

JUDGED = ("trial", "everything")
"""The ways to install that hold all templates between them."""

WITHOUT_PROBES = "Pod.default.valence-tests-"
"""The pods of `helm test` run to their end; nobody probes them (CKV_K8S_8, CKV_K8S_9)."""

SCORE_TOLERATED = {
    "container-image-pull-policy": "As CKV_K8S_15.",
    "deployment-has-host-podantiaffinity": "Topology spread does that, and by zone too.",
    "statefulset-has-servicename": "It wants a headless Service; a ClusterIP refuses at once while"
    " the one pod is away, and nobody calls the pod by its name.",
}


def run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a tool on a text; the caller judges."""
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for each way to install."""
    folder = tmp_path_factory.mktemp("manifests")
    for name, values in INSTALLATIONS.items():
        (folder / f"{name}.yaml").write_text(rendered(values))
    return folder


def test_kubeconform(manifests: Path) -> None:
    """Strict, for the minor that we run on; kinds of operators have no schema there."""
    command = [tool("kubeconform"), "-strict", "-summary", "-output", "json"]
    command += ["-kubernetes-version", "1.34.0", "-schema-location", SCHEMAS]
    command += ["-skip", OPERATORS, str(manifests)]
    ours = ("ingress-nginx.yaml", "metrics-server.yaml", "namespace.yaml")
    command += [str(ROOT / "k8s" / name) for name in ours]
    result = run(command)
    out_of_reach = "failed downloading schema" in result.stdout
    require("kubeconform", not out_of_reach, "no schemas: set KUBECONFORM_SCHEMAS to a folder")
    summary = json.loads(result.stdout)["summary"]
    assert (summary["invalid"], summary["errors"]) == (0, 0), result.stdout
    assert summary["valid"] > 100


@pytest.mark.parametrize("name", JUDGED)
@pytest.mark.parametrize("minor", ["1.35", "1.36"])
def test_newer_kubernetes_takes_the_manifests(minor: str, name: str, tmp_path: Path) -> None:
    """`kubernetes-validate` brings the schemas of minors to come."""
    path = tmp_path / "manifests.yaml"
    known = [o for o in objects(INSTALLATIONS[name]) if o["kind"] not in OPERATORS.split(",")]
    path.write_text(yaml.safe_dump_all(known))
    result = run([*isolated("kubernetes-validate"), "--strict", "-k", minor, str(path)])
    unknown = "unknown kubernetes version" in (result.stdout + result.stderr).lower()
    require("packages", not unknown, f"this kubernetes-validate does not know {minor}")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", JUDGED)
def test_kube_score(name: str) -> None:
    command = [tool("kube-score"), "score", "--output-format", "json", "-"]
    ignored = [part for name in SCORE_TOLERATED for part in ("--ignore-test", name)]
    result = run([*command[:2], *ignored, *command[2:]], rendered(INSTALLATIONS[name]))
    findings = [
        (scored["object_name"], check["check"]["id"], comment["summary"])
        for scored in json.loads(result.stdout)
        for check in scored["checks"]
        if check["grade"] < 10 and not check["skipped"]
        for comment in check["comments"] or []
    ]
    assert findings == []


@pytest.mark.parametrize("name", JUDGED)
def test_checkov(name: str, manifests: Path) -> None:
    command = [*isolated("checkov"), "--framework", "kubernetes", "--output", "json", "--quiet"]
    command += ["--compact", "--skip-check", ",".join(TOLERATED), "--skip-download"]
    result = run([*command, "--file", str(manifests / f"{name}.yaml")])
    assert result.stdout.lstrip().startswith("{"), result.stderr[-2000:]
    report = json.loads(result.stdout)
    failed = {
        (check["check_id"], check["resource"])
        for check in report["results"]["failed_checks"]
        if not (
            check["check_id"] in {"CKV_K8S_8", "CKV_K8S_9"}
            and check["resource"].startswith(WITHOUT_PROBES)
        )
    }
    assert failed == set()
    assert report["summary"]["passed"] > 300
    assert report["summary"]["parsing_errors"] == 0


def isolated(name: str) -> list[str]:
    """A Python tool in an environment of its own, or a skip when there is none to be had."""
    uv = shutil.which("uv") or str(ROOT / ".venv" / "bin" / "uv")
    require("packages", Path(uv).exists(), "uv is not on PATH")
    command = [uv, "tool", "run", "--python", "3.11", name]
    require("packages", run([*command, "--help"]).returncode == 0, f"no {name}: not proven")
    return command
