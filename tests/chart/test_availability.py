"""Scaling, disruption budgets and spreading, and the connections that Postgres allows."""

import math

from support.chart import (
    EXTERNAL,
    NOTHING,
    TRIAL,
    Object,
    find_object,
    helm_template,
    objects,
    pods,
)
from valence_batch_worker.batches.backlog import MAX_CHUNKS, WAITING

RESERVED = 3 + 10
"""Connections for superusers, and a margin for people and migrations."""


def max_pods(manifests: list[Object], name: str) -> int:
    """Return the maximum of pods that a Deployment has in the middle of a rollout."""
    deployment = find_object(manifests, "Deployment", name)
    scalers = [
        o["spec"]["maxReplicas"]
        for o in manifests
        if o["kind"] == "HorizontalPodAutoscaler" and o["spec"]["scaleTargetRef"]["name"] == name
    ]
    replicas = scalers[0] if scalers else deployment["spec"]["replicas"]
    surge = deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    return replicas + math.ceil(replicas * int(surge.rstrip("%")) / 100)


def variable(manifests: list[Object], name: str, variable: str) -> int:
    """Return a number in the environment of a Deployment."""
    [container] = pods(manifests)[name]["spec"]["containers"]
    (value,) = [v["value"] for v in container["env"] if v["name"] == variable]
    return int(value)


def test_connections_fit_into_postgres() -> None:
    """At the peak of a rollout, with every autoscaler at its maximum (case 59)."""
    manifests = objects(TRIAL)
    needed = RESERVED
    for name in ("valence-auth", "valence-inference"):
        # The pool, and one to poll for revocations.
        pool_size = variable(manifests, name, "VALENCE_DATABASE_POOL_SIZE")
        needed += max_pods(manifests, name) * (pool_size + 1)
    # Of a worker: each scoring process, sweeper, erasure, retention, outbox relay, health check.
    concurrency = variable(manifests, "valence-batch-worker", "VALENCE_CONCURRENCY")
    needed += max_pods(manifests, "valence-batch-worker") * (concurrency + 5)
    [server] = pods(manifests)["valence-postgres"]["spec"]["containers"]
    (allowed,) = [a for a in server["args"] if a.startswith("max_connections=")]
    assert needed <= int(allowed.partition("=")[2])


def test_an_autoscaler_owns_the_replicas() -> None:
    for name in ("valence-inference", "valence-batch-worker"):
        assert "replicas" not in find_object(objects(EXTERNAL), "Deployment", name)["spec"]
        assert "replicas" in find_object(objects(NOTHING), "Deployment", name)["spec"]
        scaler = find_object(objects(EXTERNAL), "HorizontalPodAutoscaler", name)
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert {"scaleUp", "scaleDown"} <= set(scaler["spec"]["behavior"])


KEDA = {"autoscaling": {"enabled": False}, "keda": {"enabled": True, "maxReplicas": 5}}


def test_keda_scales_the_worker_by_what_waits_in_postgres() -> None:
    """One scaler, which sets the replicas, runs the worker's query as the worker's role."""
    values = {**EXTERNAL, "batchWorker": {**KEDA, "config": {"maxAttempts": 7}}}
    manifests = objects(values)
    name = "valence-batch-worker"
    scalers = {o["metadata"]["name"] for o in manifests if o["kind"] == "HorizontalPodAutoscaler"}
    assert {"valence-inference"} == scalers
    assert "replicas" not in find_object(manifests, "Deployment", name)["spec"]
    spec = find_object(manifests, "ScaledObject", name)["spec"]
    assert (name, 2, 5) == (
        spec["scaleTargetRef"]["name"],
        spec["minReplicaCount"],
        spec["maxReplicaCount"],
    )
    [trigger] = spec["triggers"]
    query = WAITING.replace(":max_attempts", "7").replace(":limit", str(MAX_CHUNKS))
    assert " ".join(query.split()) == trigger["metadata"]["query"]
    assert {"type", "metadata", "authenticationRef"} == set(trigger)
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    name = trigger["authenticationRef"]["name"]
    authentication = find_object(manifests, "TriggerAuthentication", name)["spec"]
    [reference] = authentication["secretTargetRef"]
    assert {"parameter": "connection", "name": "my-postgres", "key": "worker-url"} == reference
    assert "ScaledObject" not in {o["kind"] for o in objects(EXTERNAL)}


def test_two_scalers_of_the_worker_are_rejected() -> None:
    """With a message that says what to set, as are more replicas than Postgres can serve."""
    result = helm_template({**EXTERNAL, "batchWorker": {"keda": {"enabled": True}}})
    assert "set batchWorker.autoscaling.enabled=false" in result.stderr
    result = helm_template(
        {**EXTERNAL, "batchWorker": {**KEDA, "keda": {"enabled": True, "maxReplicas": 50}}}
    )
    assert "connections to Postgres" in result.stderr


def test_disruptions_take_one_pod_at_a_time(installation: list[Object]) -> None:
    budgets = {
        o["metadata"]["name"]: o["spec"] for o in installation if o["kind"] == "PodDisruptionBudget"
    }
    deployments = [o for o in installation if o["kind"] == "Deployment"]
    assert set(budgets) == {d["metadata"]["name"] for d in deployments}
    for deployment in deployments:
        budget = budgets[deployment["metadata"]["name"]]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"] == deployment["spec"]["selector"]
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_selectors_never_change(installation: list[Object]) -> None:
    """Kubernetes allows no change of a selector, so it has no version; it has the component."""
    for manifest in installation:
        if manifest["kind"] in {"Deployment", "StatefulSet"}:
            labels = manifest["spec"]["selector"]["matchLabels"]
            assert set(labels) == {
                "app.kubernetes.io/name",
                "app.kubernetes.io/instance",
                "app.kubernetes.io/component",
            }
            assert labels.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()


def test_pods_spread(installation: list[Object]) -> None:
    for manifest in installation:
        if manifest["kind"] == "Deployment":
            spread = manifest["spec"]["template"]["spec"]["topologySpreadConstraints"]
            assert {s["topologyKey"] for s in spread} == {
                "kubernetes.io/hostname",
                "topology.kubernetes.io/zone",
            }


def test_nothing_is_evicted_from_the_queue() -> None:
    """A Redis that evicts keys loses queued work without an error (case 28)."""
    config = find_object(objects(TRIAL), "ConfigMap", "valence-valkey")["data"]["valkey.conf"]
    assert "maxmemory-policy noeviction" in config
    assert "allkeys" not in config


def test_pods_are_scraped_by_default() -> None:
    manifests = pods(objects(EXTERNAL))
    for name in ("valence-auth", "valence-inference", "valence-batch-worker"):
        annotations = manifests[name]["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        assert annotations["prometheus.io/port"] == "9090"
    assert "prometheus.io/scrape" not in pods(objects(NOTHING))["valence-auth"]["metadata"].get(
        "annotations", {}
    )
