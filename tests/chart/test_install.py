"""The ways to install that the pages and the Makefile name: their images, cluster and namespace."""

import re
import subprocess

import pytest
import yaml

from support.chart import CHART, ROOT

VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"]
OVERLAY = ROOT / "k8s/install/overlays/kind/kustomization.yaml"


def recipe(target: str, *variables: str) -> list[str]:
    """What make would run, without running it."""
    command = ["make", "--dry-run", "--no-print-directory", target, *variables]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.replace("\\\n", " ").splitlines()


def test_documented_installs_make_the_images_that_they_ask_for() -> None:
    """`make images` tags by content unless it is told what the pods ask for."""
    base = (ROOT / "k8s/install/base/valence.yaml").read_text("utf-8")
    asked = set(re.findall(r"image: (valence-\S+)", base))
    names = {"auth", "inference", "batch-worker", "migrate"}
    assert {f"valence-{name}:{VERSION}" for name in names} == asked
    for page in (OVERLAY, CHART / "README.in.md"):
        lines = [line.lstrip("# ") for line in page.read_text("utf-8").splitlines()]
        made = lines.index(f"make images TAG={VERSION}")
        assert made < next(
            n for n, line in enumerate(lines) if re.match("helm install|kubectl", line)
        )
    built = "\n".join(recipe("images", f"TAG={VERSION}", "CLUSTER=mine"))
    assert f"--tag valence-$image:{VERSION}" in built
    assert f"kind load docker-image --name mine valence-auth:{VERSION} " in built


def test_images_take_flags_and_know_their_commit() -> None:
    """The commit is the last layer of each, or every one would make all layers anew."""
    built = "\n".join(
        recipe("images", "TAG=t", "BUILD_FLAGS=--build-arg BASE=mine", "REVISION=abc")
    )
    assert "docker build --quiet --build-arg BASE=mine --build-arg REVISION=abc " in built
    stages = (ROOT / "Dockerfile").read_text("utf-8").split("\nFROM ")[-4:]
    last = 'ARG REVISION=\nLABEL org.opencontainers.image.revision="${REVISION}"'
    assert [last] * 4 == ["\n".join(stage.rstrip().splitlines()[-2:]) for stage in stages]


@pytest.mark.parametrize("target", ["cluster", "deploy", "undeploy"])
def test_make_acts_on_its_own_cluster(target: str) -> None:
    """Whatever the current context is, it is left before anything is asked of a cluster."""
    lines = recipe(target, "CLUSTER=mine", "TAG=t")
    chosen = lines.index("kind export kubeconfig --name mine")
    talking = [
        n for n, line in enumerate(lines) if re.search(r"kubectl|helm|certificate\.sh", line)
    ]
    assert chosen < min(talking)


def test_make_installs_into_the_namespace_that_it_is_told() -> None:
    """It is made under that name, and a tag of digits only is still a text."""
    lines = recipe("deploy", "NAMESPACE=elsewhere", "TAG=123456789012")
    [made] = [line for line in lines if "k8s/namespace.yaml" in line]
    script = made.rpartition("|")[0]
    done = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "elsewhere" == yaml.safe_load(done.stdout)["metadata"]["name"]
    assert "k8s/certificate.sh elsewhere" in lines
    [installed] = [line for line in lines if line.startswith("helm upgrade")]
    assert "--namespace elsewhere " in installed
    assert "--set-string image.tag=123456789012" in installed


def test_skaffold_acts_on_that_cluster_too() -> None:
    [document] = yaml.safe_load_all((ROOT / "skaffold.yaml").read_text("utf-8"))
    assert "kind-valence" == document["deploy"]["kubeContext"]
