"""Network policies: exactly the edges of facts.EDGES, said at both of their ends."""

from __future__ import annotations

from .facts import EDGES, EDGES_OF_KEYS, METADATA, OUTSIDE, STORE_KEYS
from .objects import Cluster, Findings, Object, rule, title

Edge = tuple[str, str, str]
NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"
PEERS = {
    ("monitoring", NAME, "prometheus"): "prometheus",
    ("kube-system", "k8s-app", "kube-dns"): "dns",
}


def peer_name(peer: Object) -> str:
    """Who a peer of a policy is; anything that is not one of the known forms is told as it stands."""
    pods = dict((peer.get("podSelector") or {}).get("matchLabels") or {})
    spaces = (peer.get("namespaceSelector") or {}).get("matchLabels")
    if set(peer) == {"podSelector"} and set(pods) == {NAME, COMPONENT} and pods[NAME] == "sluice":
        return str(pods[COMPONENT])
    if set(peer) == {"podSelector", "namespaceSelector"} and len(pods) == 1 and spaces:
        key, value = next(iter(pods.items()))
        known = PEERS.get((spaces.get("kubernetes.io/metadata.name", ""), key, value))
        if known:
            return known
    block = peer.get("ipBlock") or {}
    if set(peer) == {"ipBlock"} and (not str(block.get("cidr")).endswith("/0") or METADATA in (block.get("except") or [])):
        return "store"
    return f"anyone like {peer}"


def port_names(ports: list[Object]) -> set[str]:
    if not ports:
        return {"any port"}
    found = set()
    for port in ports:
        number = str(port.get("port", "any port"))
        text = f"{number}-{port['endPort']}" if "endPort" in port else number
        found.add(text if port.get("protocol", "TCP") == "TCP" else f"{text}/{port['protocol']}")
    return found


def edges(policy: Object, side: str) -> set[Edge]:
    """The edges that a policy allows as "ingress" or "egress"."""
    own = ((policy["spec"].get("podSelector") or {}).get("matchLabels") or {}).get(COMPONENT, "everyone")
    found = set()
    for entry in policy["spec"].get(side) or []:
        peers = entry.get("from" if side == "ingress" else "to") or [{}]
        for peer in peers:
            for port in port_names(entry.get("ports") or []):
                other = peer_name(peer)
                found.add((other, own, port) if side == "ingress" else (own, other, port))
    return found


def with_keys(cluster: Cluster) -> set[str]:
    """The components that have keys of an object store."""
    return {pod.component for pod, container in cluster.containers() for entry in container.env if entry["name"] in STORE_KEYS}


def here(cluster: Cluster) -> set[str]:
    return {pod.component for pod in cluster.pods} | set(OUTSIDE) | {"store"}


def expected(cluster: Cluster, side: str) -> set[Edge]:
    present = here(cluster)
    outside = ("prometheus",) if side == "egress" else ("dns", "store")  # their policies are not ours to write
    keys = with_keys(cluster)
    found = {edge for edge in EDGES if edge[0] in present and edge[1] in present and (edge not in EDGES_OF_KEYS or edge[0] in keys)
             and edge[0 if side == "egress" else 1] not in outside}
    # DNS is asked over UDP, and over TCP for long answers; everything else is TCP.
    return found | {(source, target, f"{port}/UDP") for source, target, port in found if target == "dns"}


def allowed(cluster: Cluster, side: str) -> set[Edge]:
    return {edge for policy in cluster.kind("NetworkPolicy") for edge in edges(policy, side)}


@rule("policy-denies-all")
def policy_denies_all(cluster: Cluster) -> Findings:
    """One policy takes in every pod and allows nothing, so that the others are the whole truth."""
    deny = [policy for policy in cluster.kind("NetworkPolicy")
            if (policy["spec"].get("podSelector") or {}) == {"matchLabels": {NAME: "sluice"}}
            and not policy["spec"].get("ingress") and not policy["spec"].get("egress")]
    if len(deny) != 1:
        yield "NetworkPolicy", f"want one that denies everything, found {len(deny)}"
    for pod in cluster.pods:
        if pod.labels.get(NAME) != "sluice":
            yield pod.title, f"is not under the policies: {NAME} is {pod.labels.get(NAME)}"


@rule("policy-both-ways")
def policy_both_ways(cluster: Cluster) -> Findings:
    """Every policy speaks of ingress and egress: silence would mean that all is allowed."""
    for policy in cluster.kind("NetworkPolicy"):
        if sorted(policy["spec"].get("policyTypes") or []) != ["Egress", "Ingress"]:
            yield title(policy), "want policyTypes [Ingress, Egress]"


@rule("policy-selects-pods")
def policy_selects_pods(cluster: Cluster) -> Findings:
    """A policy is about pods that are there."""
    for policy in cluster.kind("NetworkPolicy"):
        component = ((policy["spec"].get("podSelector") or {}).get("matchLabels") or {}).get(COMPONENT)
        if component is not None and component not in here(cluster):
            yield title(policy), f"there are no pods of component {component}"


@rule("edge-missing")
def edge_missing(cluster: Cluster) -> Findings:
    """What must talk may talk, by the policies of both ends."""
    for side in ("ingress", "egress"):
        for source, target, port in sorted(expected(cluster, side) - allowed(cluster, side)):
            yield f"NetworkPolicy ({side})", f"{source} may not reach {target} at {port}"


@rule("edge-extra")
def edge_extra(cluster: Cluster) -> Findings:
    """Nothing else is allowed."""
    for side in ("ingress", "egress"):
        for source, target, port in sorted(allowed(cluster, side) - expected(cluster, side)):
            yield f"NetworkPolicy ({side})", f"{source} may reach {target} at {port}, which nothing needs"


@rule("edge-port-served")
def edge_port_served(cluster: Cluster) -> Findings:
    """Edges between our pods lead to ports that the target declares; the collective's are the kernel's choice."""
    for _, target, port in sorted(allowed(cluster, "ingress")):
        for pod in cluster.pods:
            if pod.component == target and port.isdigit() and int(port) not in [
                    number for container in pod.containers for number in container.ports.values()]:
                yield "NetworkPolicy (ingress)", f"{target} has no port {port}"
