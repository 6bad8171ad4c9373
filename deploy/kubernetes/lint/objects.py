"""Rendered manifests as the rules see them: objects, pods and their command lines. Knows nothing of Sluice's flags."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Object = dict[str, Any]
Findings = Iterator[tuple[str, str]]  # the object, and what is wrong with it

CLUSTER_KINDS = ("Namespace", "PriorityClass")  # the kinds used here that belong to no namespace
QUANTITY = re.compile(r"^(\d+(?:\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")
FACTORS = {"m": 0.001, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30,
           "Ti": 2**40}


@dataclass(frozen=True)
class Rule:
    name: str
    check: Callable[[Cluster], Findings]


RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Callable[[Cluster], Findings]], Callable[[Cluster], Findings]]:
    """Puts a check on the list. Its docstring says what must hold."""
    def add(check: Callable[[Cluster], Findings]) -> Callable[[Cluster], Findings]:
        assert name not in RULES and check.__doc__, name
        RULES[name] = Rule(name, check)
        return check
    return add


def title(thing: Object) -> str:
    return f"{thing.get('kind', '?')}/{thing.get('metadata', {}).get('name', '?')}"


def labels(thing: Object) -> dict[str, str]:
    return thing.get("metadata", {}).get("labels") or {}


def quantity(value: Any) -> float | None:
    """The number that a quantity stands for; None if it is not one."""
    found = QUANTITY.match(str(value))
    return float(found[1]) * FACTORS[found[2] or ""] if found else None


def matches(selector: dict[str, str], label_set: dict[str, str]) -> bool:
    """An empty selector matches nothing here: all the selectors of ours mean somebody."""
    return bool(selector) and all(label_set.get(key) == value for key, value in selector.items())


@dataclass
class Container:
    """A container and the command line that it runs."""
    spec: Object
    binary: str = ""
    words: list[str] = field(default_factory=list)  # subcommand and other positionals
    flags: dict[str, str] = field(default_factory=dict)  # the last value of each, without --
    repeated: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        line = list(map(str, (self.spec.get("command") or []) + (self.spec.get("args") or [])))
        self.binary = line[0].rsplit("/", 1)[-1] if line else ""
        for word in line[1:]:
            if not word.startswith("--"):
                self.words.append(word)
                continue
            name, _, value = word[2:].partition("=")
            if name in self.flags:
                self.repeated.append(name)
            self.flags[name] = value

    @property
    def name(self) -> str:
        return str(self.spec.get("name", "?"))

    @property
    def ports(self) -> dict[str, int]:
        return {port.get("name", ""): port["containerPort"] for port in self.spec.get("ports") or []}

    @property
    def mounts(self) -> list[Object]:
        return self.spec.get("volumeMounts") or []

    @property
    def env(self) -> list[Object]:
        return self.spec.get("env") or []

    def resource(self, kind: str, name: str) -> Any:
        return ((self.spec.get("resources") or {}).get(kind) or {}).get(name)

    def mount_of(self, path: str) -> Object | None:
        """The mount that a path lies in: the longest that fits."""
        fitting = [mount for mount in self.mounts if (path + "/").startswith(mount["mountPath"].rstrip("/") + "/")]
        return max(fitting, key=lambda mount: len(mount["mountPath"]), default=None)


JOB_SETS = ("JobSet", "TrainingRuntime")  # a JobSet, and Kubeflow's template of one


def job_set_spec(thing: Object) -> Object:
    """The spec of a JobSet, or of the JobSets that a TrainingRuntime makes."""
    spec = thing.get("spec") or {}
    return ((spec.get("template") or {}).get("spec") or {}) if thing["kind"] == "TrainingRuntime" else spec


@dataclass
class Pod:
    """A pod template, with who makes pods of it."""
    owner: Object
    title: str
    template: Object
    replicas: int | None  # None: an autoscaler's, or the API's default of 1
    selector: dict[str, str] | None  # of its owner; a Job needs none
    job: Object | None = None  # the spec of the Job that it belongs to

    @property
    def spec(self) -> Object:
        return self.template.get("spec") or {}

    @property
    def labels(self) -> dict[str, str]:
        """Those of the template, and the JobSet's name, which its controller adds."""
        own = (self.template.get("metadata") or {}).get("labels") or {}
        added = self.owner["kind"] == "JobSet"  # a TrainJob's name is known once there is one
        return {**own, "jobset.sigs.k8s.io/jobset-name": self.owner["metadata"].get("name", "")} if added else own

    @property
    def component(self) -> str:
        return self.labels.get("app.kubernetes.io/component", "")

    @property
    def role(self) -> str:
        """What its program is: one-shot jobs run the same programs as the resident service."""
        return re.sub("^(job|train)-", "", self.component)

    @property
    def containers(self) -> list[Container]:
        return [Container(spec) for spec in self.spec.get("containers") or []]

    @property
    def volumes(self) -> dict[str, Object]:
        return {volume.get("name", ""): volume for volume in self.spec.get("volumes") or []}


class Cluster:
    """All objects of one rendered overlay."""

    def __init__(self, things: list[Object]) -> None:
        self.things = things
        self.pods = list(self._pods())

    def kind(self, *names: str) -> list[Object]:
        return [thing for thing in self.things if thing.get("kind") in names]

    def named(self, kind: str, name: str) -> Object | None:
        return next((thing for thing in self.kind(kind) if thing["metadata"].get("name") == name), None)

    def containers(self) -> Iterator[tuple[Pod, Container]]:
        for pod in self.pods:
            for container in pod.containers:
                yield pod, container

    def selected(self, selector: dict[str, str]) -> list[Pod]:
        return [pod for pod in self.pods if matches(selector, pod.labels)]

    def _pods(self) -> Iterator[Pod]:
        for thing in self.things:
            spec = thing.get("spec") or {}
            if thing.get("kind") in ("Deployment", "StatefulSet"):
                yield Pod(thing, title(thing), spec.get("template") or {}, spec.get("replicas"),
                          (spec.get("selector") or {}).get("matchLabels") or {})
            elif thing.get("kind") in JOB_SETS:
                for job in job_set_spec(thing).get("replicatedJobs") or []:
                    inner = job["template"]["spec"]
                    yield Pod(thing, f"{title(thing)}/{job.get('name')}", inner.get("template") or {},
                              inner.get("parallelism"), None, inner)


Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast, where it is there


class _Strict(Loader):  # type: ignore[misc, valid-type]
    """Refuses what YAML lets pass and people do not mean."""


def _mapping(loader: Any, node: yaml.MappingNode) -> Object:
    seen = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' is there twice", key.start_mark)
        seen.add(key.value)
    return dict(loader.construct_mapping(node, deep=True))


def _boolean(loader: Any, node: yaml.ScalarNode) -> bool:
    if node.value not in ("true", "false"):
        raise yaml.constructor.ConstructorError(None, None, f"'{node.value}' means true or false: quote it, or say so",
                                                node.start_mark)
    return bool(node.value == "true")


_Strict.add_constructor("tag:yaml.org,2002:map", _mapping)
_Strict.add_constructor("tag:yaml.org,2002:bool", _boolean)


def load(text: str) -> list[Object]:
    """The objects of a file; yaml.YAMLError for a key that is there twice, and for yes, no, on and off as booleans."""
    return [thing for thing in yaml.load_all(text, Loader=_Strict) if thing is not None]
