"""The installation under test: `make cluster deploy`, with additional values for the tests."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.cluster import CHART, ROOT, User, edge, helm, rolled_out
from support.required import require, tool

FILES = ("Dockerfile", ".dockerignore", "Makefile", "requirements.lock", "skaffold.yaml")
FOLDERS = ("alembic", "charts", "k8s", "ml", "services")
VALUES = Path(__file__).with_name("values.yaml")


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """Upgrade the release to the tests' values, but only on a kind cluster."""
    for name in ("kubectl", "helm"):
        tool(name, "kind")
    result = subprocess.run(
        ["kubectl", "config", "current-context"], capture_output=True, text=True, check=False
    )
    context = result.stdout.strip()
    require("kind", context.startswith("kind-"), f"the current context is {context!r}")
    helm(
        *("upgrade", "valence", str(CHART), "--reuse-values", "--values", str(VALUES)),
        *("--wait", "--timeout", "5m"),
    )
    for name in ("auth", "inference", "batch-worker"):
        rolled_out(f"deployment/valence-{name}")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources to change: skaffold watches all files of its directory."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, checkout / name)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    return checkout


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client of the public address."""
    with edge() as client:
        yield client


@pytest.fixture
def user(client: httpx.Client) -> User:
    """A new account."""
    return User(client)
