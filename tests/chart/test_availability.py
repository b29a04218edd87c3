"""What keeps an installation up, and within what its servers can take."""

import math

from support.chart import EXTERNAL, NOTHING, TRIAL, Object, helm_template, objects, only, pods
from valence_batch_worker.batches.backlog import MOST_CHUNKS, WAITING

RESERVED = 3 + 10
"""What Postgres keeps for superusers, and a margin for people and migrations."""


def most(found: list[Object], name: str) -> int:
    """The most pods that a Deployment may have at once, in the middle of a rollout."""
    deployment = only(found, "Deployment", name)
    scalers = [
        o["spec"]["maxReplicas"]
        for o in found
        if o["kind"] == "HorizontalPodAutoscaler" and o["spec"]["scaleTargetRef"]["name"] == name
    ]
    replicas = scalers[0] if scalers else deployment["spec"]["replicas"]
    surge = deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    return replicas + math.ceil(replicas * int(surge.rstrip("%")) / 100)


def variable(found: list[Object], name: str, variable: str) -> int:
    """A number in a Deployment's environment."""
    (container,) = only(found, "Deployment", name)["spec"]["template"]["spec"]["containers"]
    (value,) = [v["value"] for v in container["env"] if v["name"] == variable]
    return int(value)


def test_connections_fit_into_postgres() -> None:
    """At the peak of a rollout, with every autoscaler at its most (case 59)."""
    found = objects(TRIAL)
    needed = RESERVED
    for name in ("valence-auth", "valence-inference"):
        # And one, to hear of revocations.
        needed += most(found, name) * (variable(found, name, "VALENCE_DATABASE_POOL_SIZE") + 1)
    # Of a worker: one a scoring process, the three loops' of its parent and the probe's.
    concurrency = variable(found, "valence-batch-worker", "VALENCE_CONCURRENCY")
    needed += most(found, "valence-batch-worker") * (concurrency + 4)
    (server,) = only(found, "StatefulSet", "valence-postgres")["spec"]["template"]["spec"][
        "containers"
    ]
    (allowed,) = [a for a in server["args"] if a.startswith("max_connections=")]
    assert needed <= int(allowed.partition("=")[2])


def test_an_autoscaler_owns_the_replicas() -> None:
    for name in ("valence-inference", "valence-batch-worker"):
        assert "replicas" not in only(objects(EXTERNAL), "Deployment", name)["spec"]
        assert "replicas" in only(objects(NOTHING), "Deployment", name)["spec"]
        scaler = only(objects(EXTERNAL), "HorizontalPodAutoscaler", name)
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert {"scaleUp", "scaleDown"} <= set(scaler["spec"]["behavior"])


KEDA = {"autoscaling": {"enabled": False}, "keda": {"enabled": True, "maxReplicas": 5}}


def test_keda_scales_the_worker_by_what_waits_in_postgres() -> None:
    """One scaler, which owns the replicas, asks the worker's own query as the worker's role."""
    values = {**EXTERNAL, "batchWorker": {**KEDA, "config": {"maxAttempts": 7}}}
    found = objects(values)
    name = "valence-batch-worker"
    scalers = {o["metadata"]["name"] for o in found if o["kind"] == "HorizontalPodAutoscaler"}
    assert {"valence-inference"} == scalers
    assert "replicas" not in only(found, "Deployment", name)["spec"]
    spec = only(found, "ScaledObject", name)["spec"]
    assert (name, 2, 5) == (
        spec["scaleTargetRef"]["name"],
        spec["minReplicaCount"],
        spec["maxReplicaCount"],
    )
    [trigger] = spec["triggers"]
    query = WAITING.replace(":max_attempts", "7").replace(":most", str(MOST_CHUNKS))
    assert " ".join(query.split()) == trigger["metadata"]["query"]
    assert {"type", "metadata", "authenticationRef"} == set(trigger)
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    secret = only(found, "TriggerAuthentication", trigger["authenticationRef"]["name"])["spec"]
    [reference] = secret["secretTargetRef"]
    assert {"parameter": "connection", "name": "my-postgres", "key": "worker-url"} == reference
    assert "ScaledObject" not in {o["kind"] for o in objects(EXTERNAL)}


def test_two_scalers_of_the_worker_are_refused() -> None:
    """With a sentence that says what to set; and so are more replicas than Postgres can serve."""
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


def test_selectors_hold_what_never_changes(installation: list[Object]) -> None:
    """A selector cannot be changed later: no version in it, and no pod of another component."""
    for each in installation:
        if each["kind"] in {"Deployment", "StatefulSet"}:
            labels = each["spec"]["selector"]["matchLabels"]
            assert set(labels) == {
                "app.kubernetes.io/name",
                "app.kubernetes.io/instance",
                "app.kubernetes.io/component",
            }
            assert labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()


def test_pods_spread(installation: list[Object]) -> None:
    for each in installation:
        if each["kind"] == "Deployment":
            spread = each["spec"]["template"]["spec"]["topologySpreadConstraints"]
            assert {s["topologyKey"] for s in spread} == {
                "kubernetes.io/hostname",
                "topology.kubernetes.io/zone",
            }


def test_nothing_is_evicted_from_the_queue() -> None:
    """A Redis that evicts loses queued work silently (case 28)."""
    config = only(objects(TRIAL), "ConfigMap", "valence-valkey")["data"]["valkey.conf"]
    assert "maxmemory-policy noeviction" in config
    assert "allkeys" not in config


def test_pods_are_scraped_by_default() -> None:
    found = pods(objects(EXTERNAL))
    for name in ("valence-auth", "valence-inference", "valence-batch-worker"):
        annotations = found[name]["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        assert annotations["prometheus.io/port"] == "9090"
    assert "prometheus.io/scrape" not in pods(objects(NOTHING))["valence-auth"]["metadata"].get(
        "annotations", {}
    )
