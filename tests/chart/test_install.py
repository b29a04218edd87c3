"""The documented ways to install: their images, cluster and namespace."""

import re
import subprocess

import pytest
import yaml

from support.chart import CHART, ROOT

VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"]
OVERLAY = ROOT / "k8s/install/overlays/kind/kustomization.yaml"


def recipe(target: str, *variables: str) -> list[str]:
    """Return the commands that make would run."""
    command = ["make", "--dry-run", "--no-print-directory", target, *variables]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return result.stdout.replace("\\\n", " ").splitlines()


def test_documented_installs_build_the_images_that_they_use() -> None:
    """`make images` tags by content unless TAG is set to the tag of the pods' images."""
    base = (ROOT / "k8s/install/base/valence.yaml").read_text("utf-8")
    used = set(re.findall(r"image: (valence-\S+)", base))
    names = {"auth", "inference", "batch-worker", "migrate"}
    assert {f"valence-{name}:{VERSION}" for name in names} == used
    for page in (OVERLAY, CHART / "README.in.md"):
        lines = [line.lstrip("# ") for line in page.read_text("utf-8").splitlines()]
        build = lines.index(f"make images TAG={VERSION}")
        assert build < next(
            n for n, line in enumerate(lines) if re.match("helm install|kubectl", line)
        )
    built = "\n".join(recipe("images", f"TAG={VERSION}", "CLUSTER=mine"))
    assert f"--tag valence-$image:{VERSION}" in built
    assert f"kind load docker-image --name mine valence-auth:{VERSION} " in built


def test_images_take_flags_and_know_their_commit() -> None:
    """The commit is in the last layer of each image, so that a new commit rebuilds no other."""
    built = "\n".join(
        recipe("images", "TAG=t", "BUILD_FLAGS=--build-arg BASE=mine", "REVISION=abc")
    )
    assert "docker build --quiet --build-arg BASE=mine --build-arg REVISION=abc " in built
    stages = (ROOT / "Dockerfile").read_text("utf-8").split("\nFROM ")[-4:]
    last = 'ARG REVISION=\nLABEL org.opencontainers.image.revision="${REVISION}"'
    assert [last] * 4 == ["\n".join(stage.rstrip().splitlines()[-2:]) for stage in stages]


@pytest.mark.parametrize("target", ["cluster", "deploy", "undeploy"])
def test_make_acts_on_its_own_cluster(target: str) -> None:
    """The target selects its context before any command that uses a cluster."""
    lines = recipe(target, "CLUSTER=mine", "TAG=t")
    chosen = lines.index("kind export kubeconfig --name mine")
    talking = [
        n for n, line in enumerate(lines) if re.search(r"kubectl|helm|certificate\.sh", line)
    ]
    assert chosen < min(talking)


def test_make_installs_into_the_chosen_namespace() -> None:
    """make creates the namespace, and passes a tag of digits as a string."""
    lines = recipe("deploy", "NAMESPACE=elsewhere", "TAG=123456789012")
    [create] = [line for line in lines if "k8s/namespace.yaml" in line]
    script = create.rpartition("|")[0]
    result = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "elsewhere" == yaml.safe_load(result.stdout)["metadata"]["name"]
    assert "k8s/certificate.sh elsewhere" in lines
    [install] = [line for line in lines if line.startswith("helm upgrade")]
    assert "--namespace elsewhere " in install
    assert "--set-string image.tag=123456789012" in install


def test_skaffold_acts_on_that_cluster_too() -> None:
    [document] = yaml.safe_load_all((ROOT / "skaffold.yaml").read_text("utf-8"))
    assert "kind-valence" == document["deploy"]["kubeContext"]
