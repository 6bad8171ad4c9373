"""Network policies evaluated over pods: who may open a connection to whom, by both ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from .manifests import Object, Unsupported, matches


class Member(Protocol):
    """A pod as policies see it."""
    name: str
    namespace: str
    labels: dict[str, str]


@dataclass(frozen=True, order=True)
class Ports:
    protocol: str
    low: int
    high: int

    def __str__(self) -> str:
        text = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
        return text if self.protocol == "tcp" else f"{text}/{self.protocol}"

    def meet(self, other: Ports) -> Ports | None:
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Ports(self.protocol, low, high) if self.protocol == other.protocol and low <= high else None


ANY = (Ports("tcp", 1, 65535), Ports("udp", 1, 65535))


class Policies:
    def __init__(self, things: Iterable[Object], namespaces: dict[str, dict[str, str]]):
        self.policies = [thing for thing in things if thing["kind"] == "NetworkPolicy"]
        self.namespaces = namespaces  # name -> labels

    def isolating(self, pod: Member, side: str) -> list[Object]:
        """The policies that select the pod for "Ingress" or "Egress"; none means that all is allowed."""
        return [policy for policy in self.policies
                if policy["metadata"].get("namespace") == pod.namespace and side in policy["spec"]["policyTypes"]
                and matches(policy["spec"].get("podSelector"), pod.labels)]

    def one_side(self, pod: Member, other: Member, side: str) -> list[Ports]:
        policies = self.isolating(pod, side)
        if not policies:
            return list(ANY)
        found: list[Ports] = []
        for policy in policies:
            for entry in policy["spec"].get(side.lower()) or []:
                peers = entry.get("from" if side == "Ingress" else "to")
                if not peers or any(self.is_peer(policy, peer, other) for peer in peers):
                    found += [ports_of(port) for port in entry.get("ports") or []] or list(ANY)
        return found

    def is_peer(self, policy: Object, peer: Object, other: Member) -> bool:
        if set(peer) - {"podSelector", "namespaceSelector"}:
            raise Unsupported(f"peer {peer}")
        if "namespaceSelector" in peer:
            if not matches(peer["namespaceSelector"], self.namespaces.get(other.namespace, {})):
                return False
        elif other.namespace != policy["metadata"].get("namespace"):
            return False
        return matches(peer.get("podSelector") or {}, other.labels)

    def allowed(self, source: Member, target: Member) -> list[Ports]:
        """Where source may reach target: what both ends allow."""
        meetings = {ports.meet(other) for ports in self.one_side(source, target, "Egress")
                    for other in self.one_side(target, source, "Ingress")}
        return sorted(ports for ports in meetings if ports)


def ports_of(port: Object) -> Ports:
    if not isinstance(port.get("port"), int):
        raise Unsupported(f"port {port}: this harness wants numbers")
    return Ports(port.get("protocol", "TCP").lower(), port["port"], port.get("endPort", port["port"]))
