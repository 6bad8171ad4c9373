"""Names, labels and kinds: what the schemas let pass and a server or a colleague would not."""

from __future__ import annotations

import re
from collections import Counter

from .facts import API_LABELS, SHARED_LABELS
from .objects import CLUSTER_KINDS, Cluster, Findings, labels, rule, title

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
# Objects whose name becomes a label of DNS, by itself or as the beginning of a pod's.
SHORT_NAMES = ("Service", "StatefulSet", "JobSet", "Namespace")


@rule("name-legal")
def name_legal(cluster: Cluster) -> Findings:
    """Names are what DNS allows, and short enough for where they end up."""
    for thing in cluster.things:
        name = str(thing["metadata"].get("name", ""))
        form, limit = (LABEL, 52) if thing["kind"] in SHORT_NAMES else (SUBDOMAIN, 253)
        if not form.fullmatch(name) or len(name) > limit:
            yield title(thing), f"'{name}' is no legal name here (small letters, digits, '-'; at most {limit})"


@rule("label-legal")
def label_legal(cluster: Cluster) -> Findings:
    """Labels keep the syntax that selectors need."""
    sets = [(title(thing), labels(thing)) for thing in cluster.things]
    sets += [(pod.title, pod.labels) for pod in cluster.pods]
    for where, found in sets:
        for key, value in found.items():
            if not LABEL_KEY.fullmatch(key) or not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
                yield where, f"label {key}: {value!r} is not legal"


@rule("object-once")
def object_once(cluster: Cluster) -> Findings:
    """No object is there twice."""
    count = Counter((thing["kind"], thing["metadata"].get("namespace"), thing["metadata"].get("name"))
                    for thing in cluster.things)
    for (kind, _, name), times in count.items():
        if times > 1:
            yield f"{kind}/{name}", f"is there {times} times"


@rule("one-namespace")
def one_namespace(cluster: Cluster) -> Findings:
    """Everything that can be is in the one namespace that the overlay makes."""
    made = [thing["metadata"]["name"] for thing in cluster.kind("Namespace")]
    if len(made) != 1:
        yield "Namespace", f"want one, found {len(made)}"
        return
    for thing in cluster.things:
        namespace = thing["metadata"].get("namespace")
        want = None if thing["kind"] in CLUSTER_KINDS else made[0]
        if namespace != want:
            yield title(thing), f"is in namespace {namespace}, want {want}"


@rule("namespace-restricted")
def namespace_restricted(cluster: Cluster) -> Findings:
    """The namespace enforces the restricted pod standard, of a release that is named."""
    for thing in cluster.kind("Namespace"):
        if labels(thing).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield title(thing), "does not enforce the restricted pod standard"
        if not re.fullmatch(r"v1\.\d+", labels(thing).get("pod-security.kubernetes.io/enforce-version", "")):
            yield title(thing), "want pod-security.kubernetes.io/enforce-version: v1.N"


@rule("labels-recommended")
def labels_recommended(cluster: Cluster) -> Findings:
    """Objects and pods carry the recommended labels; what is about all roles has no component."""
    sets = [(pod.title + " (pods)", pod.labels, API_LABELS) for pod in cluster.pods]
    for thing in cluster.things:
        whole = thing["kind"] == "Namespace" or title(thing) == "NetworkPolicy/sluice-deny"
        sets.append((title(thing), labels(thing), SHARED_LABELS if whole else API_LABELS))
    for where, found, wanted in sets:
        missing = [key for key in wanted if key not in found]
        if missing:
            yield where, f"lacks {', '.join(missing)}"
