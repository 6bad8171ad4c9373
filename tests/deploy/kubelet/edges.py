"""Who talks to whom: what the policies allow, what docs/kubernetes.md says, what was seen, and what must be refused."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import time
from dataclasses import dataclass

from . import network
from .cluster import Cluster, role
from .network import Connection, inside
from .pods import Pod
from .policy import Ports
from .probes import TOP

sys.path.insert(0, os.path.join(TOP, "deploy", "kubernetes"))
from lint import facts  # noqa: E402  # its folder is known from here on

Edge = tuple[str, str, str]
LIMIT_S = 30
UNDECLARED = (22, 40000)  # probed at every pod, beside its own ports
NOT_USED = {("dns", "53"): "answers fit into datagrams"}  # target and port -> why an edge may go unused


@dataclass
class Row:
    edge: Edge
    pairs: int  # of pods that used it
    exception: str


def table(cluster: Cluster) -> set[Edge]:
    """The edges of docs/kubernetes.md, which a test holds to the linter's table; those to an object store where there are keys."""
    keys = {role(pod) for pod in cluster.pods for container in pod.containers for entry in container.spec.get("env") or []
            if entry["name"] in facts.STORE_KEYS}
    edges = {edge for edge in facts.EDGES if edge not in facts.EDGES_OF_KEYS or edge[0] in keys}
    return edges | {(source, target, f"{port}/udp") for source, target, port in edges if target == "dns"}


def declared(cluster: Cluster) -> dict[Edge, Ports]:
    """What the policies allow between the pods that are there, as far as policies speak of them."""
    found = {}
    for source in cluster.pods:
        for target in cluster.pods:
            if source is not target and (cluster.policies.isolating(source, "Egress")
                                         or cluster.policies.isolating(target, "Ingress")):
                for ports in cluster.policies.allowed(source, target):
                    found[role(source), role(target), str(ports)] = ports
    return found


def compare(cluster: Cluster) -> list[Row]:
    """Every edge of the table or of the policies, with how many pairs of pods used it. Both must be the same set, and each
    used; findings say where not."""
    present = [role(pod) for pod in cluster.pods]
    wanted = {edge for edge in table(cluster) if edge[0] in present and edge[1] in present}
    policies = declared(cluster)
    seen = [(cluster.role_at(connection.source), cluster.role_at(connection.target), connection)
            for connection in cluster.network.counted()["allowed"]]
    rows = []
    for edge in sorted(wanted | set(policies)):
        source, target, text = edge
        if edge not in wanted:
            cluster.find("edge-extra", f"{source} -> {target} at {text}", "the policies allow it, the table does not know it")
        alone = source == target and present.count(source) == 1
        if edge not in policies and not alone:
            cluster.find("edge-missing", f"{source} -> {target} at {text}", "the table has it, the policies do not allow it")
        ports = policies.get(edge)
        count = len({(connection.source, connection.target) for one, other, connection in seen
                     if ports and (one, other) == (source, target) and connection.protocol == ports.protocol
                     and ports.low <= connection.port <= ports.high})
        exception = f"one {source} alone" if alone else NOT_USED.get((target, text), "")
        if not count and not exception and edge in wanted:
            cluster.find("edge-unused", f"{source} -> {target} at {text}", "allowed, and nothing went that way")
        rows.append(Row(edge, count, "" if count else exception))
    return rows


def may(edges: set[Edge], source: Pod, target: Pod | None, port: int) -> bool:
    """By the table, over TCP."""
    for one, other, text in edges:
        low, _, high = text.partition("-")
        if target and (one, other) == (role(source), role(target)) and low.isdigit():
            if int(low) <= port <= int(high or low):
                return True
    return False


def probe_forbidden(cluster: Cluster) -> int:
    """Tries every connection between pods, and out of the cluster, that the table does not have; returns how many were
    refused by a policy. A finding for each that was not."""
    cluster.find_refused()
    edges = table(cluster)
    before = cluster.network.counted()["allowed"]
    refused_before = {connection for _, connection in cluster.refused()}
    tried: list[tuple[Pod, str, Connection]] = []
    for source in cluster.pods:
        plans = [("outside", Connection(source.port.address, network.OUTSIDE, "tcp", 443))] if source.containers else []
        for target in cluster.pods:
            if source is target or not (source.containers or target.containers):
                continue
            ports = {number for container in target.containers for number in container.ports.values()} | set(UNDECLARED)
            plans += [(role(target), Connection(source.port.address, target.port.address, "tcp", port))
                      for port in sorted(ports) if not may(edges, source, target, port)]
        cluster.tried |= {plan for _, plan in plans}
        answers = inside(source.port.namespace, lambda plans=plans: connect([plan for _, plan in plans]))  # type: ignore[misc]
        for name, plan in plans:
            tried.append((source, name, plan))
            if not answers[plan]:
                cluster.find("edge-open", f"{role(source)} -> {name} at {plan.port}", "was connected, and nothing allows it")
    passed = cluster.network.counted()["allowed"] - before
    refused = {connection for _, connection in cluster.refused()} | refused_before
    for source, name, plan in tried:
        if plan in passed or plan in before:
            cluster.find("edge-open", f"{role(source)} -> {name} at {plan.port}", "was let through, and nothing allows it")
        elif plan not in refused:
            cluster.find("edge-open", f"{role(source)} -> {name} at {plan.port}", "no policy refused it")
    return sum(1 for _, _, plan in tried if plan in refused)


def connect(plans: list[Connection]) -> dict[Connection, str]:
    """Tries all at once: why each failed; empty if it was connected."""
    waiting, found = {}, {}
    for plan in plans:
        attempt = socket.socket()
        attempt.setblocking(False)
        code = attempt.connect_ex((plan.target, plan.port))
        if code in (0, errno.EINPROGRESS):
            waiting[attempt] = plan
        else:
            found[plan] = os.strerror(code)
            attempt.close()
    end = time.monotonic() + LIMIT_S
    while waiting:
        _, ready, _ = select.select([], list(waiting), [], max(0, end - time.monotonic()))
        for attempt in ready or list(waiting):
            code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if ready else errno.ETIMEDOUT
            found[waiting.pop(attempt)] = os.strerror(code) if code else ""
            attempt.close()
    return found
