"""The network policies, evaluated pod by pod and port by port (case 100)."""

import itertools
from ipaddress import ip_address

import pytest

from support.addresses import OURS, PUBLIC
from support.chart import EVERYTHING, EXTERNAL, NOTHING, TRIAL, changed, objects, pods
from support.network import Network, contains, matches

ARROWS = {
    ("edge", "valence-auth", 8000),
    ("edge", "valence-inference", 8000),
    ("valence-tests-smoke", "valence-auth", 8000),
    ("valence-tests-smoke", "valence-inference", 8000),
    ("valence-tests-negative", "valence-auth", 8000),
    ("valence-tests-negative", "valence-inference", 8000),
    ("valence-tests-accounts", "valence-auth", 8000),
    ("valence-tests-accounts", "valence-inference", 8000),
    ("valence-admin", "valence-postgres", 5432),
    ("prometheus", "valence-auth", 9090),
    ("prometheus", "valence-inference", 9090),
    ("prometheus", "valence-batch-worker", 9090),
    ("valence-auth", "valence-postgres", 5432),
    ("valence-inference", "valence-postgres", 5432),
    ("valence-batch-worker", "valence-postgres", 5432),
    ("valence-auth", "valence-valkey", 6379),
    ("valence-inference", "valence-valkey", 6379),
    ("valence-batch-worker", "valence-valkey", 6379),
}
"""Every allowed connection to a pod of the release; all others must be denied."""

PUBLIC_IPV4 = [address for address in PUBLIC if ip_address(address).version == 4]
ANYWHERE = ("0.0.0.0/0", 443)


def test_an_ip_block_is_compared_by_address() -> None:
    """The evaluator sees ranges and exceptions, of pods' addresses too."""
    block = {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}
    assert contains(block, ip_address("10.2.0.1"))
    assert not contains(block, ip_address("10.1.0.1"))
    assert not contains(block, ip_address("11.0.0.1"))
    assert not contains(block, ip_address("2001:db8::1"))
    half = {"to": [{"ipBlock": {"cidr": "8.0.0.0/7"}}]}
    policy = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [half]}
    network = Network(
        [o for o in objects(TRIAL) if o["kind"] != "NetworkPolicy"]
        + [{"kind": "NetworkPolicy", "metadata": {"name": "half"}, "spec": policy}]
    )
    assert network.allows("valence-auth", "8.8.8.8", 80)
    assert not network.allows("valence-auth", "10.0.0.1", 80)
    assert network.external("valence-auth") == {("8.0.0.0/7", None)}
    half["to"][0]["ipBlock"]["cidr"] = "10.244.0.0/16"
    assert network.allows("valence-auth", "stray", 80)
    half["to"] = []
    assert network.external("valence-auth") == {("0.0.0.0/0", None), ("::/0", None)}


def test_only_the_arrows_are_open() -> None:
    """The matrix of all pods and ports, with pods of other namespaces and a neighbour."""
    network = Network(objects(TRIAL))
    allowed = {
        (source, target, port)
        for source, target in itertools.product(network.labels, network.pods)
        for port in sorted(network.numbers())
        if source != target and network.allows(source, target, port)
    }
    assert allowed == ARROWS


def test_no_pod_reaches_the_internet() -> None:
    """No pod has a rule for a network, whatever its size and port."""
    network = Network(objects(TRIAL))
    assert {name: set() for name in network.pods} == {n: network.external(n) for n in network.pods}
    for name, address, port in itertools.product(network.pods, PUBLIC, (22, 53, 80, 443, 5432)):
        assert not network.allows(name, address, port), (name, address, port)


def test_services_resolve_names_and_servers_do_not() -> None:
    network = Network(objects(TRIAL))
    resolving = {name for name in network.pods if network.allows(name, "dns", 53, "UDP")}
    assert resolving == set(network.pods) - {"valence-postgres", "valence-valkey"}


def test_external_servers_are_reached_where_they_are() -> None:
    """The services reach the two servers, each at its port, and no pod reaches anything else."""
    network = Network(objects(EXTERNAL))
    services = {"valence-auth", "valence-inference", "valence-batch-worker"}
    servers = {("10.0.0.5/32", 5432), ("10.0.0.6/32", 6379)}
    for name in network.pods:
        assert (servers if name in services else set()) == network.external(name), name
    for name in services:
        assert network.allows(name, "10.0.0.5", 5432)
        assert network.allows(name, "10.0.0.6", 6379)
        assert not network.allows(name, "10.0.0.5", 6379)
        assert not network.allows(name, "10.0.0.7", 5432)
        assert not any(network.allows(name, address, 443) for address in PUBLIC)


def test_auth_alone_reaches_the_openid_provider() -> None:
    """Only if it is enabled, and only at its port."""
    network = Network(objects({**EVERYTHING, "webhooks": {"enabled": False}}))
    for name in network.pods:
        assert ({ANYWHERE} if name == "valence-auth" else set()) == network.external(name), name
    for address in PUBLIC_IPV4:
        assert network.allows("valence-auth", address, 443)
        assert not network.allows("valence-auth", address, 80)


def test_keda_reaches_a_trials_postgres() -> None:
    """Only if it is enabled, and nothing else."""
    network = Network(objects(EVERYTHING))
    reached = {
        (name, port)
        for name in network.pods
        for port in network.numbers()
        if network.allows("keda", name, port)
    }
    assert {("valence-postgres", 5432)} == reached


def test_the_worker_alone_reaches_receivers_of_webhooks() -> None:
    """Only if they are enabled, at their ports, and at no address that is not public."""
    network = Network(objects({**TRIAL, "webhooks": {"enabled": True}}))
    for name in network.pods:
        opening = {ANYWHERE} if name == "valence-batch-worker" else set()
        assert opening == network.external(name), name
    for address in PUBLIC_IPV4:
        assert network.allows("valence-batch-worker", address, 443), address
        assert not network.allows("valence-batch-worker", address, 80), address
    for address in OURS:
        assert not network.allows("valence-batch-worker", address, 443), address
    pods_of_others = [name for name in network.labels if name != "valence-batch-worker"]
    assert not any(network.allows("valence-batch-worker", name, 443) for name in pods_of_others)


def test_webhooks_are_set_where_they_are_taken_and_sent() -> None:
    """Both services have the same settings, and none if webhooks are disabled."""
    for values, expected in (
        (TRIAL, {}),
        (
            EVERYTHING,
            {
                "VALENCE_WEBHOOKS_ENABLED": "true",
                "VALENCE_WEBHOOKS_ALLOW_HTTP": "true",
                "VALENCE_WEBHOOKS_ALLOWED_NETWORKS": "10.1.0.0/16",
            },
        ),
    ):
        by_name = pods(objects(values))
        for name in ("valence-inference", "valence-batch-worker"):
            [container] = by_name[name]["spec"]["containers"]
            variables = {variable["name"]: variable["value"] for variable in container["env"]}
            assert expected == {n: v for n, v in variables.items() if "WEBHOOK" in n}


RECEIVER = PUBLIC_IPV4[0]


def connections(network: Network) -> set[tuple[str, str, int, str]]:
    """Every allowed connection: source, target, port and protocol."""
    names = [*network.labels, RECEIVER]
    calls = [*((port, "TCP") for port in [*network.numbers(), 443]), (53, "UDP")]
    return {
        (source, target, *call)
        for source, target in itertools.product(names, names)
        if source != target and (source in network.pods or target in network.pods)
        for call in calls
        if network.allows(source, target, *call)
    }


@pytest.mark.parametrize(
    ("peers", "closed"),
    [
        ("edge", {("edge", "valence-auth", 8000), ("edge", "valence-inference", 8000)}),
        ("keda", {("keda", "valence-postgres", 5432)}),
        (
            "prometheus",
            {
                ("prometheus", f"valence-{name}", 9090)
                for name in ("auth", "inference", "batch-worker")
            },
        ),
        ("oidc", {("valence-auth", RECEIVER, 443)}),
        ("webhooks", {("valence-batch-worker", RECEIVER, 443)}),
    ],
)
def test_an_empty_list_of_peers_allows_none(peers: str, closed: set) -> None:
    """It closes these connections and opens none: to Kubernetes an empty list is every peer."""
    # The default of `oidc` is every address, and pods have addresses.
    values = changed(EVERYTHING, "networkPolicy.oidc", [{"ipBlock": {"cidr": f"{RECEIVER}/32"}}])
    before, after = (
        Network(objects(v)) for v in (values, changed(values, f"networkPolicy.{peers}", []))
    )
    assert {(*call, "TCP") for call in closed} == connections(before) - connections(after)
    assert set() == connections(after) - connections(before)
    for policy in after.policies:
        for rule in [*policy.get("ingress", []), *policy.get("egress", [])]:
            assert rule.get("from") or rule.get("to")


def test_an_empty_list_of_dns_peers_allows_none() -> None:
    """No pod resolves names then, and nothing else changes."""
    before, after = (
        connections(Network(objects(values)))
        for values in (TRIAL, changed(TRIAL, "networkPolicy.dns", []))
    )
    assert {call for call in before if call[1] == "dns"} == before - after
    assert not after - before


def test_policies_and_pods_cover_each_other() -> None:
    """Every policy selects a pod, and every pod is selected in both directions."""
    for values in (TRIAL, EXTERNAL):
        network = Network(objects(values))
        for policy in network.policies:
            selector = policy["podSelector"]
            assert any(matches(selector, network.labels[name][1]) for name in network.pods)
        for name in network.pods:
            assert network.selecting(name, "Ingress"), name
            assert network.selecting(name, "Egress"), name


def test_policies_can_be_left_out() -> None:
    assert not [o for o in objects(NOTHING) if o["kind"] == "NetworkPolicy"]
