"""Limits of pods: restricted security, only the allowed connections, only their own rights."""

import json

import pytest

from support.cluster import Object, get, kubectl, names, pods, run, sql

pytestmark = pytest.mark.e2e

CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
        print(address, "open")
    except OSError as error:
        print(address, "closed", type(error).__name__)
"""


def connect(pod: str, *addresses: str, container: str = "") -> dict[str, bool]:
    """Return which addresses a pod can connect to; its image has Python."""
    chosen = ["-c", container] if container else []
    output = kubectl("exec", pod, *chosen, "--", "python", "-c", CONNECT, *addresses)
    return {line.split()[0]: line.split()[1] == "open" for line in output.splitlines()}


def address(component: str) -> str:
    """Return the IP address of a pod of a component."""
    ip: str = pods(component)[0]["status"]["podIP"]
    return ip


@pytest.fixture
def stray() -> str:
    """A foreign pod in the namespace, which no policy selects."""
    image = pods("auth")[0]["spec"]["initContainers"][0]["image"]
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stray", "labels": {"app": "stray"}},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "stray",
                    "image": image,
                    "command": ["python", "-c", "import time; time.sleep(600)"],
                    "securityContext": security,
                }
            ],
        },
    }
    kubectl("delete", "pod", "stray", "--ignore-not-found", "--wait=true")
    kubectl("apply", "-f", "-", text=json.dumps(pod))
    kubectl("wait", "pod/stray", "--for=condition=Ready", "--timeout=60s")
    yield "stray"
    kubectl("delete", "pod", "stray", "--wait=false")


def test_a_stray_pod_reaches_nothing(stray: str) -> None:
    own = {"auth": (8000, 9090), "inference": (8000, 9090), "batch-worker": (9090,)}
    own |= {"postgres": (5432,), "valkey": (6379,)}
    targets = [f"{address(name)}:{port}" for name, ports in own.items() for port in ports]
    reached = connect(stray, *targets, "kubernetes.default.svc:443")
    # A control: the pod can open connections.
    assert reached.pop("kubernetes.default.svc:443")
    assert not any(reached.values()), reached
    print(f"\nfrom a stray pod: {len(reached)} ports, none open")


def test_the_worker_reaches_its_servers_and_nothing_else() -> None:
    inside = [f"{address('postgres')}:5432", f"{address('valkey')}:6379"]
    outside = [f"{address('auth')}:8000", f"{address('inference')}:8000"]
    outside += [f"{get('service', 'kubernetes', namespace='default')['spec']['clusterIP']}:443"]
    # Addresses of the Internet; on a machine without it, the API server is the control.
    outside += ["1.1.1.1:443", "8.8.8.8:53"]
    reached = connect(names("batch-worker")[0], *inside, *outside)
    assert [reached[a] for a in inside] == [True, True]
    assert not any(reached[a] for a in outside), reached
    print(f"\nfrom the worker: {reached}")


def test_the_namespace_enforces_restricted() -> None:
    labels = get("namespace", "valence")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    refused = run(
        *("kubectl", "-n", "valence", "run", "root", "--image=busybox:1", "--restart=Never"),
        check=False,
    )
    assert "violates PodSecurity" in refused
    running = [p for p in get("pods")["items"] if p["status"]["phase"] == "Running"]
    assert len(running) >= 5


def test_roles_hold_no_more_than_they_need() -> None:
    """The inference role cannot read a password's hash, the worker's cannot read a user."""

    def may(role: str, privilege: str, table: str, column: str) -> bool:
        query = f"SELECT has_column_privilege('{role}', '{table}', '{column}', '{privilege}')"
        return sql(query) == "t"

    assert may("valence_auth", "SELECT", "users", "password_hash")
    assert not may("valence_inference", "SELECT", "users", "password_hash")
    assert not may("valence_worker", "SELECT", "users", "email")
    assert not may("valence_auth", "INSERT", "predictions", "text")
