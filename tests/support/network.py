"""An evaluator of rendered network policies: which connections they allow.

Pods have addresses here as in a cluster, so an `ipBlock` matches by address, `except` included,
whether the address belongs to a pod or lies outside of the cluster.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from support.chart import Object, containers, pods

Address = IPv4Address | IPv6Address
Opening = tuple[str, int | None]
"""A network (CIDR) and a port; None is every port."""

NAMESPACE = "valence"
EVERYWHERE = ("0.0.0.0/0", "::/0")
OUTSIDE = {
    # Pods that the policies may select or must not, with their namespaces and labels.
    "edge": ("ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"}),
    "prometheus": ("monitoring", {"app": "prometheus"}),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
    "keda": ("keda", {"app": "keda-operator"}),
    "stray": ("default", {"app": "stray"}),
    "neighbour": (NAMESPACE, {"app": "neighbour"}),
}


class Network:
    """The pods of a release and of its surroundings, and the release's policies.

    Peers are named by a pod, or are literal addresses.
    """

    def __init__(self, manifests: list[Object]):
        self.policies = [o["spec"] for o in manifests if o["kind"] == "NetworkPolicy"]
        self.pods = pods(manifests)
        self.labels = {n: (NAMESPACE, p["metadata"]["labels"]) for n, p in self.pods.items()}
        self.labels |= OUTSIDE
        self.addresses = {
            name: ip_address(f"10.244.0.{number}") for number, name in enumerate(self.labels, 10)
        }
        self.ports = {
            name: {
                port["name"]: port["containerPort"]
                for container in containers(pod)
                for port in container.get("ports", [])
            }
            for name, pod in self.pods.items()
        }

    def numbers(self) -> set[int]:
        """Return the ports of all pods of the release."""
        return {number for ports in self.ports.values() for number in ports.values()}

    def selecting(self, name: str, direction: str) -> list[Object]:
        """Return the policies of that direction that select a pod of the release."""
        if name not in self.pods:
            return []
        labels = self.labels[name][1]
        return [
            policy
            for policy in self.policies
            if direction in policy["policyTypes"] and matches(policy["podSelector"], labels)
        ]

    def allows(self, source: str, target: str, port: int, protocol: str = "TCP") -> bool:
        """Return whether the policies of both ends allow a connection."""
        return self._one_way(source, target, "Egress", target, port, protocol) and self._one_way(
            target, source, "Ingress", target, port, protocol
        )

    def external(self, name: str) -> set[Opening]:
        """Return the networks that a pod may call, before exceptions; a rule for all is for all."""
        policies = self.selecting(name, "Egress")
        rules = [rule for policy in policies for rule in policy.get("egress", [])]
        if not policies:
            rules = [{}]
        return {
            (network, port)
            for rule in rules
            for network in _networks(rule)
            for port in [p["port"] for p in rule.get("ports", [])] or [None]
        }

    def _one_way(
        self, selected: str, peer: str, direction: str, target: str, port: int, protocol: str
    ) -> bool:
        policies = self.selecting(selected, direction)
        rules = [rule for policy in policies for rule in policy.get(direction.lower(), [])]
        side = {"Egress": "to", "Ingress": "from"}[direction]
        return not policies or any(
            self._has_port(rule, target, port, protocol)
            and (not rule.get(side) or any(self._is_peer(p, peer) for p in rule[side]))
            for rule in rules
        )

    def _has_port(self, rule: Object, target: str, port: int, protocol: str) -> bool:
        assert not any("endPort" in p for p in rule.get("ports", []))
        numbers = {
            (self.ports.get(target, {}).get(p["port"], p["port"]), p.get("protocol", "TCP"))
            for p in rule.get("ports", [])
        }
        return not numbers or (port, protocol) in numbers

    def _is_peer(self, selector: Object, peer: str) -> bool:
        if "ipBlock" in selector:
            address = self.addresses[peer] if peer in self.addresses else ip_address(peer)
            return contains(selector["ipBlock"], address)
        if peer not in self.labels:
            return False
        namespace, labels = self.labels[peer]
        if "namespaceSelector" in selector:
            namespace_labels = {"kubernetes.io/metadata.name": namespace}
            if not matches(selector["namespaceSelector"], namespace_labels):
                return False
        elif namespace != NAMESPACE:
            return False
        return matches(selector.get("podSelector", {}), labels)


def contains(block: Object, address: Address) -> bool:
    """Return whether an `ipBlock` has this address; no network has one of the other version."""
    return address in ip_network(block["cidr"]) and not any(
        address in ip_network(excluded) for excluded in block.get("except", [])
    )


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Return whether a label selector selects these labels."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "NotIn"
        if labels.get(rule["key"]) in rule["values"]:
            return False
    return True


def _networks(rule: Object) -> list[str]:
    if not rule.get("to"):
        return [*EVERYWHERE]
    return [str(ip_network(p["ipBlock"]["cidr"])) for p in rule["to"] if "ipBlock" in p]
