"""Scraping, rules and autoscaling queries: they speak of metrics that exist, under labels that the rules expect."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .facts import metrics, read
from .objects import Cluster, Findings, load, quantity, rule, title

SERIES = re.compile(r"\b(?:sluice[_:]|process_|exposer_)[a-z0-9_:]+")
MATCHER = re.compile(r'\bjob="([^"]*)"')


def rules_of(cluster: Cluster) -> Iterator[tuple[str, dict[str, str]]]:
    for thing in cluster.kind("PrometheusRule"):
        for group in thing["spec"].get("groups") or []:
            for entry in group.get("rules") or []:
                yield title(thing), entry


def queries(cluster: Cluster) -> Iterator[tuple[str, str]]:
    for where, entry in rules_of(cluster):
        yield f"{where} {entry.get('alert') or entry.get('record')}", str(entry.get("expr", ""))
    for thing in cluster.kind("ScaledObject"):
        for trigger in thing["spec"].get("triggers") or []:
            yield title(thing), str((trigger.get("metadata") or {}).get("query", ""))


@rule("metrics-known")
def metrics_known(cluster: Cluster) -> Findings:
    """Queries ask for metrics that this release exports, or that a rule records."""
    recorded = set(re.findall(r"^ +- record: (\S+)$", read("deploy/prometheus/rules.yml"), re.MULTILINE))
    for where, query in queries(cluster):
        for name in sorted(set(SERIES.findall(query)) - metrics() - recorded):
            yield where, f"nobody exports {name}"


@rule("rules-in-step")
def rules_in_step(cluster: Cluster) -> Findings:
    """The operator's rules are those of deploy/prometheus/rules.yml, which promtool tests."""
    for thing in cluster.kind("PrometheusRule"):
        if thing["spec"] != load(read("deploy/prometheus/rules.yml"))[0]:
            yield title(thing), "differs from deploy/prometheus/rules.yml"


@rule("scrape-everyone")
def scrape_everyone(cluster: Cluster) -> Findings:
    """A PodMonitor scrapes every pod of ours, at a port that it has, and faster than it gives up."""
    for thing in cluster.kind("PodMonitor"):
        chosen = cluster.selected((thing["spec"].get("selector") or {}).get("matchLabels") or {})
        for pod in cluster.pods:
            if pod not in chosen:
                yield title(thing), f"does not scrape {pod.title}"
        for endpoint in thing["spec"].get("podMetricsEndpoints") or []:
            for pod in chosen:
                if endpoint.get("port") != "metrics" or endpoint.get("path") != "/metrics":
                    yield title(thing), f"asks {pod.title} at {endpoint.get('port')}{endpoint.get('path')}"
            interval, limit = (float(str(endpoint.get(key, "0s")).rstrip("s") or 0)
                               for key in ("interval", "scrapeTimeout"))
            if not 0 < limit <= interval:
                yield title(thing), f"scrapes every {interval:g} s and waits {limit:g} s"


@rule("scrape-labels")
def scrape_labels(cluster: Cluster) -> Findings:
    """Scraped series carry the labels that rules and dashboards ask for: job, role, and the pod as instance."""
    for thing in cluster.kind("PodMonitor"):
        if thing["spec"].get("jobLabel") != "app.kubernetes.io/instance":
            yield title(thing), "want jobLabel: app.kubernetes.io/instance"
        for endpoint in thing["spec"].get("podMetricsEndpoints") or []:
            targets = {entry.get("targetLabel"): entry for entry in endpoint.get("relabelings") or []}
            if (targets.get("instance") or {}).get("sourceLabels") != ["__meta_kubernetes_pod_name"]:
                yield title(thing), "instance is not the pod's name, so a restart looks like another process"
            role = targets.get("role") or {}
            form = re.compile(str(role.get("regex", "(.*)")))
            for pod in cluster.pods:
                found = form.fullmatch(pod.component)
                source = role.get("sourceLabels") == ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]
                if not source or not found or found[1] != pod.role:
                    yield title(thing), f"{pod.title} would not get the label role={pod.role}"
    if cluster.kind("PodMonitor"):
        for pod in cluster.pods:
            if not pod.labels.get("app.kubernetes.io/instance", "").startswith("sluice"):
                yield pod.title, "its instance, which becomes the label job, does not begin with sluice"


@rule("scaling-query")
def scaling_query(cluster: Cluster) -> Findings:
    """The query asks about this deployment, compares a ratio with a ratio, and an answer of nothing changes nothing."""
    instances = {pod.labels.get("app.kubernetes.io/instance") for pod in cluster.pods}
    for thing in cluster.kind("ScaledObject"):
        for trigger in thing["spec"].get("triggers") or []:
            metadata = trigger.get("metadata") or {}
            asked = set(MATCHER.findall(metadata.get("query", "")))
            if asked != instances:
                yield title(thing), f"its query is about job {sorted(asked)}, the pods of {sorted(map(str, instances))}"
            if trigger.get("metricType") != "Value":
                yield title(thing), "a share is no sum over actors: want metricType: Value"
            if not 0 < (quantity(metadata.get("threshold")) or 0) < 1:
                yield title(thing), f"threshold {metadata.get('threshold')} of a share"
            if metadata.get("ignoreNullValues") != "false":
                yield title(thing), "without an answer actors would be sent away: want ignoreNullValues: \"false\""
