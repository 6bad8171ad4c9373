"""One node with the pods of some manifests, their Services, names and policies, and what was found wrong."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import cgroups, image, jobs, network
from .manifests import Object, PodSpec, matches, pod_of, find, pods, title
from .network import Connection
from .pods import Container, Exit, Pod
from .policy import Policies, Ports

# Pods that are not in the manifests and yet in the policies, and strangers: name, namespace, labels.
GUESTS = (("dns", "kube-system", {"k8s-app": "kube-dns"}),
          ("prometheus", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
          ("neighbour", "sluice", {"app.kubernetes.io/name": "neighbour"}),
          ("stranger", "default", {}))


@dataclass(frozen=True)
class Finding:
    name: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.name}: {self.where}: {self.what}"


class Cluster:
    """pace: probes and back-offs go by declared periods times this; budgets and grace periods stay as declared."""

    def __init__(self, things: list[Object], folder: str, binaries: str, pace: float = 1):
        self.things, self.folder, self.pace = things, folder, pace
        self.lock = threading.RLock()
        self.number = 0
        self.findings: list[Finding] = []
        self.exits: list[tuple[str, Exit]] = []  # of containers that nobody drained
        self.expected: Callable[[Container, Exit], str] = lambda container, exit: ""  # why an exit is none to find
        self.pods: list[Pod] = []
        self.gone: list[Pod] = []
        self.applied: Any = None
        self.tried: set[Connection] = set()  # by this harness, to see them refused
        for name in ("etc", "claims", "logs"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        self.image = image.describe(binaries, os.path.join(folder, "etc"))
        self.network = network.Network()
        names = {name for _, name, _ in GUESTS} | {thing["metadata"].get("namespace", "default") for thing in things}
        self.policies = Policies(things, {name: {"kubernetes.io/metadata.name": name} for name in names})
        services = [thing for thing in things if thing["kind"] == "Service"]
        services += [made for thing in things if thing["kind"] == "JobSet" and (made := jobs.service_of(thing))]
        self.services = {(thing["metadata"]["namespace"], thing["metadata"]["name"]): thing for thing in services}
        self.addresses = {key: f"10.96.1.{index + 1}" for index, key in enumerate(sorted(self.services))}
        self.guests = {name: self.add(PodSpec(name, namespace, labels, {}, {}, "Guest")) for name, namespace, labels in GUESTS}
        network.serve_dns(self.guests["dns"].port, lambda: self.network.names)

    # -------------------------------------------------------------------------------------------------------- pods

    def add(self, spec: PodSpec) -> Pod:
        """Gives the pod its network; start() runs it."""
        with self.lock:
            pod = Pod(self, copy.deepcopy(spec))
            self.pods.append(pod)
        self.sync()
        return pod

    def start(self, *owners: str) -> None:
        """Every pod of the manifests, or those of some owners, all at once."""
        added = [self.add(spec) for spec in pods(self.things) if not owners or spec.owner in owners]
        for pod in added:
            pod.start()

    def of(self, owner: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.made_of.owner == owner]

    def replace(self, pod: Pod) -> Pod:
        """The successor that a controller makes of a deleted pod."""
        owner = find(self.things, pod.made_of.owner)
        index = int(pod.name.rsplit("-", 1)[1]) if pod.made_of.lasting_name else 100 + self.next_number()
        successor = self.add(pod_of(owner, index))
        successor.start()
        return successor

    def forget(self, pod: Pod) -> None:
        with self.lock:
            self.pods.remove(pod)
            self.gone.append(pod)
            self.sync()
            self.network.detach(pod.port)

    def kill_everything(self) -> None:
        with self.lock:
            left = list(self.pods)
        for pod in left:
            pod.deleted.set()
            for container in pod.containers + pod.init:
                container.send(9)
                container.ended.wait()
        for pod in left + self.gone:
            for container in pod.containers + pod.init:
                container.memory.remove()

    def next_number(self) -> int:
        with self.lock:
            self.number += 1
            return self.number

    def claims(self, namespace: str) -> str:
        folder = os.path.join(self.folder, "claims", namespace)
        os.makedirs(folder, exist_ok=True)
        return folder

    # ---------------------------------------------------------------------------------------------------- findings

    def find(self, name: str, where: str, what: str) -> None:
        with self.lock:
            finding = Finding(name, where, what)
            if finding not in self.findings:
                self.findings.append(finding)

    def ended(self, container: Container, exit: Exit) -> None:
        """A container ended that nobody drained."""
        with self.lock:
            self.exits.append((container.title, exit))
        if exit.why == "memory":
            self.find("memory", container.title, f"killed at its limit of {container.memory.limit} bytes")
        elif exit.why == "itself" and not self.expected(container, exit) and not (container.init and exit.code == 0):
            self.find("exited", container.title, f"exit code {exit.code}: {container.last_words()}")

    # ----------------------------------------------------------------------------------------------------- network

    def endpoints(self, service: Object) -> list[Pod]:
        spec = service["spec"]
        return [pod for pod in self.pods
                if pod.namespace == service["metadata"]["namespace"] and matches({"matchLabels": spec["selector"]}, pod.labels)
                and pod.containers and not pod.gone and (pod.ready or spec.get("publishNotReadyAddresses"))]

    def sync(self) -> None:
        """Brings names, Services and rules in step with the pods and their readiness."""
        with self.lock:
            names: dict[str, list[str]] = {}
            rewrites = []
            for key, service in self.services.items():
                ready, spec = self.endpoints(service), service["spec"]
                domain = f"{key[1]}.{key[0]}.svc.{network.DOMAIN}"
                if spec.get("clusterIP") == "None":
                    names[domain] = [pod.port.address for pod in ready]
                    names.update({f"{pod.hostname}.{domain}": [pod.port.address] for pod in ready
                                  if pod.spec.get("subdomain") == key[1]})
                    continue
                names[domain] = [self.addresses[key]]
                for port in spec["ports"]:
                    targets = [(pod.port.address, number) for pod in ready
                               if (number := target_port(pod, port.get("targetPort", port["port"])))]
                    rewrites.append((self.addresses[key], port["port"], targets))
            dns = next((pod for pod in self.pods if pod.name == "dns"), None)
            rewrites.append((network.DNS_SERVICE, 53, [(dns.port.address, 53)] if dns else []))
            self.network.names = names
            wanted = (rewrites, self.peers("Egress"), self.peers("Ingress"))
            if wanted != self.applied:
                self.network.apply(*wanted)
                self.applied = wanted

    def peers(self, side: str) -> dict[str, list[tuple[str, Ports]]]:
        return {pod.port.address: [(other.port.address, ports) for other in self.pods if other is not pod
                                   for ports in self.policies.one_side(pod, other, side)]
                for pod in self.pods if self.policies.isolating(pod, side)}

    def pod_at(self, address: str) -> str:
        for pod in self.pods + self.gone:
            if pod.port.address == address:
                return pod.name
        return "outside" if address == network.OUTSIDE else address

    def role_at(self, address: str) -> str:
        for pod in self.pods + self.gone:
            if pod.port.address == address:
                return role(pod)
        return "outside" if address == network.OUTSIDE else address

    def refused(self) -> set[tuple[str, Connection]]:
        """(which end refused, connection) so far."""
        counted = self.network.counted()
        return ({("egress", connection) for connection in counted["refused_out"]}
                | {("ingress", connection) for connection in counted["refused_in"]})

    def find_refused(self) -> None:
        """Every connection that a policy refused to one of the manifests' own processes."""
        for side, connection in sorted(self.refused(), key=str):
            if connection in self.tried:
                continue
            own = connection.source if side == "egress" else connection.target
            self.find("edge-refused", f"{self.role_at(connection.source)} -> {self.role_at(connection.target)} at "
                      f"{connection.port}/{connection.protocol}", f"by the {side} policies of {self.pod_at(own)}")


def role(pod: Pod) -> str:
    """Who a pod is in the table of edges."""
    return pod.labels.get("app.kubernetes.io/component", pod.name)


def target_port(pod: Pod, target: int | str) -> int:
    """The number of a Service's port at a pod; 0 if the pod has none of that name."""
    if isinstance(target, int):
        return target
    return next((container.ports[target] for container in pod.containers if target in container.ports), 0)


def memory_is_limited() -> bool:
    return bool(cgroups.parent())


__all__ = ["Cluster", "Finding", "GUESTS", "memory_is_limited", "role", "title"]
