"""The network policies, evaluated pod by pod and port by port (case 100)."""

import itertools
from ipaddress import ip_address, ip_network

import pytest

from support.addresses import OURS
from support.chart import EVERYTHING, EXTERNAL, NOTHING, TRIAL, Object, containers, objects, pods

INTERNET = "internet"
OUTSIDE = {
    # Pods of other namespaces that the policies may name, by namespace and labels.
    "edge": ("ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"}),
    "prometheus": ("monitoring", {"app": "prometheus"}),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
    "keda": ("keda", {"app": "keda-operator"}),
    "stray": ("default", {"app": "stray"}),
    "neighbour": ("valence", {"app": "neighbour"}),
}
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
"""Every connection that may be made to a pod of the release; all others must not."""


class Net:
    """Who is who, and which policies say what."""

    def __init__(self, found: list[Object]):
        self.policies = [o["spec"] for o in found if o["kind"] == "NetworkPolicy"]
        self.pods = pods(found)
        self.labels = {n: ("valence", p["metadata"]["labels"]) for n, p in self.pods.items()}
        self.labels |= OUTSIDE
        self.ports = {
            name: {
                port["name"]: port["containerPort"]
                for container in containers(pod)
                for port in container.get("ports", [])
            }
            for name, pod in self.pods.items()
        }

    def selecting(self, name: str, direction: str) -> list[Object]:
        """The policies of that direction that select a pod of the release."""
        if name not in self.pods:
            return []
        labels = self.labels[name][1]
        return [
            policy
            for policy in self.policies
            if direction in policy["policyTypes"] and matches(policy["podSelector"], labels)
        ]

    def allows(self, source: str, target: str, port: int, protocol: str = "TCP") -> bool:
        """Whether both ends let a connection through."""
        return self._out(source, target, port, protocol) and self._in(
            source, target, port, protocol
        )

    def _out(self, source: str, target: str, port: int, protocol: str) -> bool:
        policies = self.selecting(source, "Egress")
        rules = [rule for policy in policies for rule in policy.get("egress", [])]
        return not policies or any(
            self._rule(r, "to", target, target, port, protocol) for r in rules
        )

    def _in(self, source: str, target: str, port: int, protocol: str) -> bool:
        policies = self.selecting(target, "Ingress")
        rules = [rule for policy in policies for rule in policy.get("ingress", [])]
        return not policies or any(
            self._rule(r, "from", source, target, port, protocol) for r in rules
        )

    def _rule(
        self, rule: Object, side: str, peer: str, target: str, port: int, protocol: str
    ) -> bool:
        numbers = {
            (self.ports.get(target, {}).get(p["port"], p["port"]), p.get("protocol", "TCP"))
            for p in rule.get("ports", [])
        }
        if numbers and (port, protocol) not in numbers:
            return False
        return side not in rule or any(self._peer(p, peer) for p in rule[side])

    def _peer(self, selector: Object, name: str) -> bool:
        if "ipBlock" in selector:
            return name == selector["ipBlock"]["cidr"]
        if name not in self.labels:
            return False
        namespace, labels = self.labels[name]
        if "namespaceSelector" in selector:
            own = {"kubernetes.io/metadata.name": namespace}
            if not matches(selector["namespaceSelector"], own):
                return False
        elif namespace != "valence":
            return False
        return matches(selector.get("podSelector", {}), labels)


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "NotIn"
        if labels.get(rule["key"]) in rule["values"]:
            return False
    return True


def test_only_the_arrows_are_open() -> None:
    """The whole matrix of pods and ports; from pods of elsewhere, and from next door."""
    net = Net(objects(TRIAL))
    ports = {number for own in net.ports.values() for number in own.values()}
    open_now = {
        (source, target, port)
        for source, target in itertools.product(net.labels, net.pods)
        for port in sorted(ports)
        if source != target and net.allows(source, target, port)
    }
    assert open_now == ARROWS


def test_no_pod_reaches_the_internet() -> None:
    net = Net(objects(TRIAL))
    for name, port in itertools.product(net.pods, (22, 53, 80, 443, 5432, 6379)):
        assert not net.allows(name, INTERNET, port), (name, port)


def test_services_resolve_names_and_servers_do_not() -> None:
    net = Net(objects(TRIAL))
    resolving = {name for name in net.pods if net.allows(name, "dns", 53, "UDP")}
    assert resolving == set(net.pods) - {"valence-postgres", "valence-valkey"}


def test_external_servers_are_reached_where_they_are() -> None:
    net = Net(objects(EXTERNAL))
    for name in ("valence-auth", "valence-inference", "valence-batch-worker"):
        assert net.allows(name, "10.0.0.5/32", 5432)
        assert net.allows(name, "10.0.0.6/32", 6379)
        assert not net.allows(name, "10.0.0.5/32", 6379)
        assert not net.allows(name, INTERNET, 443)


def test_auth_alone_reaches_the_openid_provider() -> None:
    """Only where it is offered, and only at its port."""
    net = Net(objects({**EVERYTHING, "webhooks": {"enabled": False}}))
    everywhere = "0.0.0.0/0"
    assert {"valence-auth"} == {name for name in net.pods if net.allows(name, everywhere, 443)}
    assert not net.allows("valence-auth", everywhere, 80)


def test_keda_reaches_a_trials_postgres() -> None:
    """Only where it scales, and nothing else."""
    net = Net(objects(EVERYTHING))
    reached = {(n, port) for n in net.pods for port in (5432, 6379) if net.allows("keda", n, port)}
    assert {("valence-postgres", 5432)} == reached


def test_the_worker_alone_reaches_receivers_of_webhooks() -> None:
    """Only where they are offered, at their ports, and nowhere that is not the public's."""
    everywhere = "0.0.0.0/0"
    net = Net(objects({**TRIAL, "webhooks": {"enabled": True}}))
    assert {"valence-batch-worker"} == {n for n in net.pods if net.allows(n, everywhere, 443)}
    assert not net.allows("valence-batch-worker", everywhere, 80)
    [block] = [
        peer["ipBlock"]
        for policy in net.selecting("valence-batch-worker", "Egress")
        for rule in policy.get("egress", [])
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]
    closed = [ip_network(network) for network in block["except"]]
    for written in OURS:
        address = ip_address(written)
        if address.version == 4:
            assert any(address in network for network in closed), written


def test_webhooks_are_set_where_they_are_taken_and_sent() -> None:
    """Both services, the same; nothing of it where they are off."""
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
        made = pods(objects(values))
        for name in ("valence-inference", "valence-batch-worker"):
            [container] = made[name]["spec"]["containers"]
            variables = {each["name"]: each["value"] for each in container["env"]}
            assert expected == {n: v for n, v in variables.items() if "WEBHOOK" in n}


@pytest.mark.parametrize(
    ("peers", "outsider"),
    [
        ("edge", "edge"),
        ("prometheus", "prometheus"),
        ("keda", "keda"),
        ("dns", "dns"),
        ("oidc", "0.0.0.0/0"),
        ("webhooks", "0.0.0.0/0"),
    ],
)
def test_an_empty_list_of_peers_is_nobody(peers: str, outsider: str) -> None:
    """To Kubernetes a rule without peers is everybody; here none is left of that arrow."""
    # Each list opens one arrow: with the other way to the same outsider shut, it is gone.
    others = {"oidc": "webhooks", "webhooks": "oidc"}
    shut = {others[peers]: []} if peers in others else {}
    for empty in (False, True):
        policy = {**shut, **({peers: []} if empty else {})}
        net = Net(objects({**EVERYTHING, "networkPolicy": policy}))
        ports = {number for own in net.ports.values() for number in own.values()} | {443}
        pairs = [pair for pod in net.pods for pair in ((pod, outsider), (outsider, pod))]
        calls = itertools.product(pairs, [*((port, "TCP") for port in ports), (53, "UDP")])
        assert empty is not any(net.allows(*pair, *port) for pair, port in calls)
        assert not any(net.allows("stray", pod, port) for pod in net.pods for port in ports)
        assert not any(net.allows(pod, INTERNET, port) for pod in net.pods for port in ports)
        for rule in (
            r for p in net.policies for r in [*p.get("ingress", []), *p.get("egress", [])]
        ):
            assert rule.get("from") or rule.get("to")


def test_policies_and_pods_cover_each_other() -> None:
    """Every policy selects a pod, and every pod is selected in both directions."""
    for values in (TRIAL, EXTERNAL):
        net = Net(objects(values))
        for policy in net.policies:
            assert any(matches(policy["podSelector"], net.labels[name][1]) for name in net.pods)
        for name in net.pods:
            assert net.selecting(name, "Ingress"), name
            assert net.selecting(name, "Egress"), name


def test_policies_can_be_left_out() -> None:
    assert not [o for o in objects(NOTHING) if o["kind"] == "NetworkPolicy"]
