"""A plain Prometheus finds every pod by its annotations, and the documented series."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.cluster import NAMESPACE, Object, User, pods, until
from support.ports import own_port
from support.required import tool

pytestmark = pytest.mark.e2e_full

SERIES = {
    "auth": {
        "valence_http_requests_total",
        "valence_http_request_duration_seconds_count",
        "valence_http_requests_in_flight",
        "valence_dependency_up",
        "process_cpu_seconds_total",
    },
    "batch-worker": {
        "valence_batch_chunks_total",
        "valence_batch_texts_total",
        "valence_batch_chunk_duration_seconds_count",
        "valence_batches_ended_total",
        "valence_batch_chunks_waiting",
        "valence_dependency_up",
        "process_cpu_seconds_total",
    },
}
SERIES["inference"] = SERIES["auth"]
"""The series that ARCHITECTURE.md lists, by component."""


def scraped_pods() -> list[Object]:
    """Return the pods with the annotation to be scraped."""
    found = [pod for name in SERIES for pod in pods(name)]
    return [
        pod for pod in found if pod["metadata"]["annotations"].get("prometheus.io/scrape") == "true"
    ]


def target(pod: Object, proxy: str) -> Object:
    """Return the scrape target that a pod's annotations name, through the API server."""
    name, annotations = pod["metadata"]["name"], pod["metadata"]["annotations"]
    port, path = annotations["prometheus.io/port"], annotations["prometheus.io/path"]
    return {
        "targets": [proxy],
        "labels": {
            "__metrics_path__": f"/api/v1/namespaces/{NAMESPACE}/pods/{name}:{port}/proxy{path}",
            "pod": name,
            "component": pod["metadata"]["labels"]["app.kubernetes.io/component"],
        },
    }


def configuration(proxy: str) -> Object:
    """Return a configuration with a list of targets: Debian's Prometheus cannot discover pods."""
    targets = [target(pod, proxy) for pod in scraped_pods()]
    return {
        "global": {"scrape_interval": "2s"},
        "scrape_configs": [{"job_name": "pods", "static_configs": targets}],
    }


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """A local Prometheus, which reaches the cluster through `kubectl proxy`."""
    tool("prometheus")
    proxy_port, port = own_port(), own_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps(configuration(f"127.0.0.1:{proxy_port}")))
    with (
        subprocess.Popen(
            ["kubectl", "proxy", f"--port={proxy_port}"], stdout=subprocess.DEVNULL
        ) as proxy,
        subprocess.Popen(
            [
                *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data"),
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=(tmp_path / "log").open("w"),
        ) as server,
    ):
        yield f"http://127.0.0.1:{port}/api/v1"
        server.terminate()
        proxy.terminate()


def test_prometheus_scrapes_every_pod(user: User, prometheus: str) -> None:
    user.analyze()
    user.finished(user.submit(["good", "bad"]), timeout=60)
    expected = {pod["metadata"]["name"] for pod in scraped_pods()}
    assert {name.split("-")[1] for name in expected} == {"auth", "inference", "batch"}

    def query(expression: str) -> list[dict]:
        try:
            answer = httpx.get(f"{prometheus}/query", params={"query": expression}, timeout=5)
        except httpx.TransportError:
            return []
        return answer.json()["data"]["result"]

    def scraped() -> bool:
        return {r["metric"]["pod"] for r in query("up == 1")} >= expected

    until(scraped, timeout=60, what=f"{expected} are up")
    series: dict[str, int] = {}

    def complete() -> bool:
        # Repeated: the first requests may have reached a pod that was terminating.
        user.client.get("/api/v1/users/me", headers=user.headers)
        user.analyze()
        for component, names in SERIES.items():
            found = query(f'count by (__name__) ({{component="{component}"}})')
            series[component] = sum(int(r["value"][1]) for r in found)
            if not names <= {r["metric"]["__name__"] for r in found}:
                return False
        return True

    until(complete, timeout=60, what=f"all series; so far {series}", interval=2)
    assert query("min(valence_dependency_up)")[0]["value"][1] == "1"
    print(f"\nprometheus: {len(expected)} pods up, series {series}")
