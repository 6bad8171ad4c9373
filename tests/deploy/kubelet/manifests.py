"""Rendered manifests as a cluster's controllers see them: which pods there are to be. Knows nothing of Sluice."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Object = dict[str, Any]

# Kinds that make no pod and that nothing here acts on; any other unknown kind is refused.
INERT = ("Namespace", "ServiceAccount", "PodDisruptionBudget", "PriorityClass", "PersistentVolumeClaim", "ConfigMap",
         "Secret", "Service", "NetworkPolicy", "PodMonitor", "PrometheusRule", "ScaledObject", "Certificate", "Issuer", "TrainingRuntime")
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class Unsupported(Exception):
    """A field that this harness does not act on: better refused than passed over."""


@dataclass
class PodSpec:
    """A pod that a controller wants."""
    name: str
    namespace: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Object
    owner: str  # "Deployment/sluice-actor"
    lasting_name: bool = False  # its successor has the same name


def load(text: str) -> list[Object]:
    return [thing for thing in yaml.safe_load_all(text) if thing]


def title(thing: Object) -> str:
    return f"{thing['kind']}/{thing['metadata']['name']}"


def quantity(value: Any) -> int:
    found = re.fullmatch(r"(\d+)(k|M|G|Ki|Mi|Gi|Ti)?", str(value))
    if found is None:
        raise Unsupported(f"quantity {value}")
    return int(found[1]) * UNITS[found[2] or ""]


def matches(selector: Object | None, labels: dict[str, str]) -> bool:
    """A label selector, empty ones included, which select everything."""
    if selector is None or set(selector) - {"matchLabels"}:
        raise Unsupported(f"selector {selector}")
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())


def find(things: list[Object], wanted: str) -> Object:
    for thing in things:
        if title(thing) == wanted:
            return thing
    raise KeyError(wanted)


def pods(things: list[Object]) -> Iterator[PodSpec]:
    """Every pod at its start, but those of JobSets, whose controller (jobs.py) makes them as it goes."""
    for thing in things:
        if thing["kind"] in ("Deployment", "StatefulSet"):
            for index in range(thing["spec"].get("replicas", 1)):
                yield pod_of(thing, index)
        elif thing["kind"] not in INERT and thing["kind"] != "JobSet":
            raise Unsupported(f"kind {thing['kind']} ({title(thing)})")


def pod_of(thing: Object, index: int) -> PodSpec:
    template = copy.deepcopy(thing["spec"]["template"])
    metadata, name = template.get("metadata") or {}, f"{thing['metadata']['name']}-{index}"
    labels, lasting = dict(metadata.get("labels") or {}), thing["kind"] == "StatefulSet"
    if not matches(thing["spec"].get("selector"), labels):
        raise Unsupported(f"{title(thing)} does not select its own pods; the API server refuses it")
    if lasting:
        template["spec"].update(hostname=name, subdomain=thing["spec"]["serviceName"])
        labels["statefulset.kubernetes.io/pod-name"] = name
    return PodSpec(name, thing["metadata"].get("namespace", "default"), labels, dict(metadata.get("annotations") or {}),
                   template["spec"], title(thing), lasting)


# ------------------------------------------------------------------------------------------------------- overrides

def workload(things: list[Object], owner: str) -> Object:
    """The spec with a pod template of an owner: "Deployment/NAME", or "JobSet/NAME/JOB", also of a TrainingRuntime."""
    kind, _, rest = owner.partition("/")
    name, _, job = rest.partition("/")
    spec: Object = find(things, f"{kind}/{name}")["spec"]
    if kind not in ("JobSet", "TrainingRuntime"):
        return spec
    spec = spec if kind == "JobSet" else spec["template"]["spec"]
    return next(one["template"]["spec"] for one in spec["replicatedJobs"] if one["name"] == job)


def set_replicas(things: list[Object], owner: str, count: int) -> None:
    spec = workload(things, owner)
    spec["parallelism" if owner.count("/") > 1 else "replicas"] = count


def set_flag(things: list[Object], owner: str, flag: str, value: str) -> None:
    """Replaces the value of a flag that is there, in the containers of an owner's pods."""
    found = 0
    for container in workload(things, owner)["template"]["spec"]["containers"]:
        for index, word in enumerate(container.get("args") or []):
            if word.startswith(f"--{flag}="):
                container["args"][index] = f"--{flag}={value}"
                found += 1
    if not found:
        raise KeyError(f"{owner} has no --{flag}")
