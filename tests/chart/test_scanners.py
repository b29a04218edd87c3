"""Validators and linters run on the manifests; every waiver has its reason here."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from support.chart import INSTALLATIONS, ROOT, objects, rendered
from support.isolated import isolated
from support.required import require, tool

SCHEMAS = os.environ.get("KUBECONFORM_SCHEMAS", "default")
"""Location of kubeconform's schemas: a folder, or the default on the Internet."""

MINORS = tuple(f"1.{minor}" for minor in range(30, 38))
"""Every version of Kubernetes from the chart's `kubeVersion` to the newest with schemas."""

CHECKOV_WAIVERS = {
    "CKV_K8S_15": "Always would pull images that `kind load` loaded; tags are immutable.",
    "CKV_K8S_21": "The installer chooses the namespace; `helm template` writes it into no object.",
    "CKV_K8S_43": "Users pin digests with `*.image.digest`; the chart cannot know them.",
    "CKV_K8S_35": "No variable holds a secret: POSTGRES_PASSWORD_FILE is the path of a file.",
}
"""Checks of checkov that the manifests fail."""

CUSTOM = ("HTTPRoute", "PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication")
"""Kinds of custom resources, which have no schema here."""

ALL_TEMPLATES = ("trial", "everything")
"""Ways to install that together render all templates."""

WITHOUT_PROBES = "Pod.default.valence-tests-"
"""The pods of `helm test` run to completion, so they have no probes (CKV_K8S_8, CKV_K8S_9)."""

KUBE_SCORE_WAIVERS = {
    "container-image-pull-policy": "As CKV_K8S_15.",
    "deployment-has-host-podantiaffinity": "Topology spread constraints do that, also by zone.",
    "statefulset-has-servicename": "It asks for a headless Service. A ClusterIP refuses connections"
    " at once while the single pod is down, and no client uses the pod's own name.",
}

VALIDATE = """
import functools, json, sys
from kubernetes_validate import utils

utils.schema_contents = functools.cache(utils.schema_contents)
minors, objects = json.load(sys.stdin)
known = {version.rpartition(".")[0] for version in utils.all_versions()}
errors = {minor: [] if minor in known else ["no schemas"] for minor in minors}
for minor in minors:
    for each in objects:
        try:
            utils.validate(each, minor, strict=True)
        except Exception as error:
            errors[minor].append(f"{each['kind']}/{each['metadata']['name']}: {error.message}")
json.dump(errors, sys.stdout)
"""
"""One process for all versions: kubernetes-validate's command reads its schemas for each object."""

CLUSTER_FILES = ("ingress-nginx.yaml", "metrics-server.yaml", "namespace.yaml")


def run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a tool with this input, whether it succeeds or not."""
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file for each way to install."""
    folder = tmp_path_factory.mktemp("manifests")
    for name, values in INSTALLATIONS.items():
        (folder / f"{name}.yaml").write_text(rendered(values))
    return folder


def test_kubeconform(manifests: Path) -> None:
    """Strict, for the version that the e2e tests run on."""
    command = [tool("kubeconform"), "-strict", "-summary", "-output", "json"]
    command += ["-kubernetes-version", "1.34.0", "-schema-location", SCHEMAS]
    command += ["-skip", ",".join(CUSTOM), str(manifests)]
    command += [str(ROOT / "k8s" / name) for name in CLUSTER_FILES]
    result = run(command)
    unreachable = "failed downloading schema" in result.stdout
    reason = "kubeconform cannot download its schemas: set KUBECONFORM_SCHEMAS to a folder"
    require("kubeconform", not unreachable, reason)
    summary = json.loads(result.stdout)["summary"]
    assert (summary["invalid"], summary["errors"]) == (0, 0), result.stdout
    assert summary["valid"] > 100


def test_every_supported_kubernetes_accepts_the_manifests() -> None:
    """Strict, for each minor version from the chart's `kubeVersion` on."""
    objects_ = [o for name in ALL_TEMPLATES for o in objects(INSTALLATIONS[name])]
    for name in CLUSTER_FILES:
        objects_ += yaml.safe_load_all((ROOT / "k8s" / name).read_text("utf-8"))
    builtin = [o for o in objects_ if o and o["kind"] not in CUSTOM]
    assert len(builtin) > 100
    minors = ("1.28", *MINORS)
    command = [*isolated("kubernetes-validate"), "python", "-c", VALIDATE]
    result = run(command, json.dumps([minors, builtin]))
    assert result.returncode == 0, result.stderr[-2000:]
    errors = json.loads(result.stdout)
    # A control: 1.28 has no sleep action, which the chart's `kubeVersion` excludes.
    assert errors.pop("1.28")
    assert errors == {minor: [] for minor in MINORS}


@pytest.mark.parametrize("name", ALL_TEMPLATES)
def test_kube_score(name: str) -> None:
    waivers = [part for waiver in KUBE_SCORE_WAIVERS for part in ("--ignore-test", waiver)]
    command = [tool("kube-score"), "score", *waivers, "--output-format", "json", "-"]
    result = run(command, rendered(INSTALLATIONS[name]))
    findings = [
        (scored["object_name"], check["check"]["id"], comment["summary"])
        for scored in json.loads(result.stdout)
        for check in scored["checks"]
        if check["grade"] < 10 and not check["skipped"]
        for comment in check["comments"] or []
    ]
    assert findings == []


def test_checkov(manifests: Path) -> None:
    command = [*isolated("checkov"), "checkov", "--framework", "kubernetes", "--output", "json"]
    command += ["--quiet", "--compact", "--skip-check", ",".join(CHECKOV_WAIVERS)]
    command += ["--skip-download"]
    command += [part for name in ALL_TEMPLATES for part in ("--file", f"{manifests}/{name}.yaml")]
    result = run(command)
    assert result.stdout.lstrip().startswith("{"), result.stderr[-2000:]
    report = json.loads(result.stdout)
    failed = {
        (check["file_path"], check["check_id"], check["resource"])
        for check in report["results"]["failed_checks"]
        if not (
            check["check_id"] in {"CKV_K8S_8", "CKV_K8S_9"}
            and check["resource"].startswith(WITHOUT_PROBES)
        )
    }
    assert failed == set()
    assert report["summary"]["passed"] > 600
    assert report["summary"]["parsing_errors"] == 0
