"""What one object says of another: selectors, services, budgets, claims, accounts, classes."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import BY_HAND
from .objects import Cluster, Findings, Object, rule, title

UNSTABLE = ("app.kubernetes.io/version", "app.kubernetes.io/instance")
LONG_LIVED = ("Deployment", "StatefulSet")


def match_labels(thing: Object, *path: str) -> dict[str, str]:
    value = thing.get("spec") or {}
    for key in path:
        value = value.get(key) or {}
    return value


@rule("selector-matches-pods")
def selector_matches_pods(cluster: Cluster) -> Findings:
    """A workload selects the pods that it makes, and nobody else's."""
    for pod in cluster.pods:
        if pod.selector is None:
            continue
        chosen = cluster.selected(pod.selector)
        if pod not in chosen:
            yield pod.title, "its selector does not match its own pods"
        for other in chosen:
            if other is not pod:
                yield pod.title, f"its selector also matches the pods of {other.title}"


@rule("selector-stable")
def selector_stable(cluster: Cluster) -> Findings:
    """Selectors, which can never change, hold no label that does."""
    for pod in cluster.pods:
        for key in UNSTABLE:
            if key in (pod.selector or {}):
                yield pod.title, f"selects by {key}"


def selectors(cluster: Cluster) -> Iterator[tuple[str, dict[str, str]]]:
    """Every selector that means one role, with whose it is."""
    for thing in cluster.kind("Service"):
        yield title(thing), match_labels(thing, "selector")
    for thing in cluster.kind("PodDisruptionBudget"):
        yield title(thing), match_labels(thing, "selector", "matchLabels")
    for thing in cluster.kind("NetworkPolicy"):
        if thing["spec"].get("ingress") or thing["spec"].get("egress"):
            yield title(thing), match_labels(thing, "podSelector", "matchLabels")
    for pod in cluster.pods:
        if pod.selector is not None:
            yield pod.title, pod.selector
        wishes = (pod.spec.get("affinity") or {}).get("podAffinity") or {}
        terms = [wish.get("podAffinityTerm") or {}
                 for wish in wishes.get("preferredDuringSchedulingIgnoredDuringExecution") or []]
        for term in [*(pod.spec.get("topologySpreadConstraints") or []), *terms]:
            yield f"{pod.title} ({term.get('topologyKey')})", (term.get("labelSelector") or {}).get("matchLabels") or {}


@rule("selector-whole")
def selector_whole(cluster: Cluster) -> Findings:
    """Selectors say name and component: one alone would take in other roles, or other programs of the namespace."""
    for where, selector in selectors(cluster):
        for key in ("app.kubernetes.io/name", "app.kubernetes.io/component"):
            if key not in selector:
                yield where, f"selects without {key}"


@rule("service-selects-pods")
def service_selects_pods(cluster: Cluster) -> Findings:
    """Every Service has pods behind it, of one workload."""
    for thing in cluster.kind("Service"):
        found = cluster.selected(match_labels(thing, "selector"))
        if len(found) != 1:
            yield title(thing), f"selects the pods of {len(found)} workloads"


@rule("service-port-served")
def service_port_served(cluster: Cluster) -> Findings:
    """A Service leads to ports that its pods have, under the number by which they are known."""
    for thing in cluster.kind("Service"):
        for pod in cluster.selected(match_labels(thing, "selector")):
            ports = {name: number for container in pod.containers for name, number in container.ports.items()}
            for port in thing["spec"].get("ports") or []:
                target = port.get("targetPort", port["port"])
                number = ports.get(target) if isinstance(target, str) else target
                if number not in ports.values():
                    yield title(thing), f"its port {port['port']} leads to {target}, which {pod.title} does not have"
                elif number != port["port"]:
                    yield title(thing), f"its port {port['port']} leads to {number}: one service, one number"


@rule("governing-service")
def governing_service(cluster: Cluster) -> Findings:
    """A StatefulSet's serviceName is a headless Service over its pods."""
    for pod in cluster.pods:
        if pod.owner["kind"] != "StatefulSet":
            continue
        name = pod.owner["spec"].get("serviceName", "")
        service = cluster.named("Service", name)
        if service is None or service["spec"].get("clusterIP") != "None":
            yield pod.title, f"its serviceName '{name}' is no headless Service"
        elif pod not in cluster.selected(match_labels(service, "selector")):
            yield pod.title, f"its serviceName '{name}' does not select its pods"


@rule("budget-once")
def budget_once(cluster: Cluster) -> Findings:
    """Every long-lived workload has exactly one disruption budget, and every budget a workload."""
    budgets = cluster.kind("PodDisruptionBudget")
    for thing in budgets:
        if not cluster.selected(match_labels(thing, "selector", "matchLabels")):
            yield title(thing), "selects no pods"
    for pod in cluster.pods:
        count = sum(pod in cluster.selected(match_labels(thing, "selector", "matchLabels")) for thing in budgets)
        if count != (1 if pod.owner["kind"] in LONG_LIVED else 0):
            yield pod.title, f"has {count} disruption budgets"


@rule("budget-allows-drain")
def budget_allows_drain(cluster: Cluster) -> Findings:
    """A budget says one thing, and lets a node be drained."""
    for thing in cluster.kind("PodDisruptionBudget"):
        spec = thing["spec"]
        if ("maxUnavailable" in spec) == ("minAvailable" in spec):
            yield title(thing), "want one of maxUnavailable and minAvailable"
        elif "minAvailable" in spec:
            yield title(thing), "minAvailable blocks drains once replicas are as few: say maxUnavailable"
        elif str(spec["maxUnavailable"]) in ("0", "0%"):
            yield title(thing), "allows no disruption, so no node can be drained"


@rule("budget-ignores-unhealthy")
def budget_ignores_unhealthy(cluster: Cluster) -> Findings:
    """A pod that is not healthy holds no drain up."""
    for thing in cluster.kind("PodDisruptionBudget"):
        if thing["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield title(thing), "want unhealthyPodEvictionPolicy: AlwaysAllow"


@rule("claim-exists")
def claim_exists(cluster: Cluster) -> Findings:
    """Volumes name claims that are there."""
    for pod in cluster.pods:
        for volume in pod.volumes.values():
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if name is not None and cluster.named("PersistentVolumeClaim", name) is None:
                yield pod.title, f"there is no PersistentVolumeClaim {name}"


@rule("claim-fits-pods")
def claim_fits_pods(cluster: Cluster) -> Findings:
    """A claim of one pod is mounted by one, one of a node by workloads of one pod, and every claim by somebody."""
    for claim in cluster.kind("PersistentVolumeClaim"):
        modes = claim["spec"].get("accessModes") or []
        users = [pod for pod in cluster.pods for volume in pod.volumes.values()
                 if (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim["metadata"]["name"]]
        count = sum(pod.replicas or 1 for pod in users)
        if modes == ["ReadWriteOncePod"] and count > 1:
            yield title(claim), f"ReadWriteOncePod, but {count} pods mount it"
        if modes == ["ReadWriteOnce"] and any((pod.replicas or 1) > 1 for pod in users):
            yield title(claim), "ReadWriteOnce, but a workload of several pods mounts it: they may be on several nodes"
        if not users:
            yield title(claim), "nobody mounts it"


@rule("config-exists")
def config_exists(cluster: Cluster) -> Findings:
    """Volumes and variables name ConfigMaps and keys that are there, and Secrets that a Certificate or a person fills."""
    secrets = [thing["spec"].get("secretName") for thing in cluster.kind("Certificate")] + list(BY_HAND)
    for pod in cluster.pods:
        for volume in pod.volumes.values():
            if "secret" in volume and volume["secret"].get("secretName") not in secrets:
                yield pod.title, f"volume {volume['name']}: there is no Secret {volume['secret'].get('secretName')}"
            source = volume.get("configMap")
            if source is None:
                continue
            found = cluster.named("ConfigMap", source.get("name", ""))
            keys = [item["key"] for item in source.get("items") or []]
            if found is None:
                yield pod.title, f"volume {volume['name']}: there is no ConfigMap {source.get('name')}"
            elif [key for key in keys if key not in (found.get("data") or {})]:
                yield pod.title, f"volume {volume['name']}: ConfigMap {source['name']} lacks one of {keys}"


@rule("account-own")
def account_own(cluster: Cluster) -> Findings:
    """Each workload has a service account of its own, which is there."""
    seen: dict[str, str] = {}
    for pod in cluster.pods:
        name = pod.spec.get("serviceAccountName", "default")
        if cluster.named("ServiceAccount", name) is None:
            yield pod.title, f"there is no ServiceAccount {name}"
        elif seen.setdefault(name, pod.title) != pod.title:
            yield pod.title, f"shares ServiceAccount {name} with {seen[name]}"


@rule("priority-exists")
def priority_exists(cluster: Cluster) -> Findings:
    """Priority classes are there, and rank the roles: coordinator, reward, rank, actor."""
    values = {}
    for pod in cluster.pods:
        name = pod.spec.get("priorityClassName")
        found = cluster.named("PriorityClass", name) if name else None
        if name and found is None:
            yield pod.title, f"there is no PriorityClass {name}"
        if found and pod.selector is not None:
            values[pod.component] = found["value"]
    resident = [pod for pod in cluster.pods if pod.selector is not None]
    for pod in resident:
        if values and pod.component not in values:
            yield pod.title, "has no priority class, but others have"
    order = [values[role] for role in ("coordinator", "reward", "rank", "actor") if role in values]
    if order != sorted(order, reverse=True) or len(set(order)) != len(order):
        yield "PriorityClass", f"want coordinator over reward over rank over actor, got {values}"


@rule("autoscaler-alone")
def autoscaler_alone(cluster: Cluster) -> Findings:
    """Each number of replicas has one owner: the manifest, or an autoscaler with sensible bounds."""
    for thing in cluster.kind("ScaledObject", "HorizontalPodAutoscaler"):
        target = thing["spec"].get("scaleTargetRef") or {}
        found = cluster.named(target.get("kind", "Deployment"), target.get("name", ""))
        if found is None:
            yield title(thing), f"there is no {target.get('kind', 'Deployment')} {target.get('name')} to scale"
        elif "replicas" in found["spec"]:
            yield title(found), f"sets replicas beside {title(thing)}"
        low = thing["spec"].get("minReplicaCount", thing["spec"].get("minReplicas", 1))
        high = thing["spec"].get("maxReplicaCount", thing["spec"].get("maxReplicas", 1))
        if not 1 <= low < high:
            yield title(thing), f"scales from {low} to {high}"
    scaled = [(thing["spec"].get("scaleTargetRef") or {}).get("name")
              for thing in cluster.kind("ScaledObject", "HorizontalPodAutoscaler")]
    for pod in cluster.pods:
        if pod.replicas is None and pod.owner["metadata"]["name"] not in scaled:
            yield pod.title, "says no number of replicas, and nothing scales it"
