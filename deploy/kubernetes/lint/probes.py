"""Probes and drains: when a pod counts as started, alive and ready, and how long it may take to go."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import DRAIN_MARGIN, HEALTH_OF_PEERS, STARTUP, drain
from .objects import Cluster, Container, Findings, Object, Pod, rule

KINDS = ("startupProbe", "livenessProbe", "readinessProbe")
DEFAULTS = {"periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3, "successThreshold": 1}


def setting(probe: Object, key: str) -> int:
    return int(probe.get(key) or 0) if key in probe else DEFAULTS[key]


def probes(cluster: Cluster) -> Iterator[tuple[Pod, Container, str, Object]]:
    """Every probe that is there, with its kind."""
    for pod, container in cluster.containers():
        for kind in KINDS:
            if container.spec.get(kind) is not None:
                yield pod, container, kind, container.spec[kind]


def port_of(probe: Object, container: Container) -> int | None:
    """The number of the port that is asked; None if the container does not have it."""
    for action in ("grpc", "httpGet", "tcpSocket"):
        if action in probe:
            port = probe[action].get("port")
            number = container.ports.get(port) if isinstance(port, str) else port
            return number if number in container.ports.values() else None
    return None


@rule("probes-three")
def probes_three(cluster: Cluster) -> Findings:
    """Starting, living and being ready are three questions, and each is asked."""
    for pod, container in cluster.containers():
        missing = [kind for kind in KINDS if kind not in container.spec]
        if missing:
            yield pod.title, f"container {container.name} lacks {', '.join(missing)}"


@rule("probe-port")
def probe_port(cluster: Cluster) -> Findings:
    """A probe asks a port that the container has, gRPC by number."""
    for pod, container, kind, probe in probes(cluster):
        if "grpc" in probe and not isinstance(probe["grpc"].get("port"), int):
            yield pod.title, f"{kind}: a gRPC probe takes a number, got {probe['grpc'].get('port')!r}"
        elif port_of(probe, container) is None:
            yield pod.title, f"{kind} asks a port that container {container.name} does not have"


@rule("probe-question")
def probe_question(cluster: Cluster) -> Findings:
    """gRPC health is asked where gRPC is served, for the whole process; /metrics at the port metrics; nothing else."""
    for pod, container, kind, probe in probes(cluster):
        port = port_of(probe, container)
        if "grpc" in probe:
            # A probe speaks no TLS.
            plain = ("health",) if "tls-cert" in container.flags else ("health", "grpc")
            if port is not None and port not in [container.ports.get(name) for name in plain]:
                yield pod.title, f"{kind}: gRPC health is not served in plaintext at {port}"
            if probe["grpc"].get("service"):
                yield pod.title, f"{kind}: no process answers for the service {probe['grpc']['service']!r}"
        elif "httpGet" in probe:
            wrong = port is not None and port != container.ports.get("metrics")
            if probe["httpGet"].get("path") != "/metrics" or wrong:
                yield pod.title, f"{kind}: the one page is /metrics at the port metrics"
        elif probe:
            yield pod.title, f"{kind}: want gRPC health or /metrics, got {sorted(probe)}"


@rule("probe-numbers")
def probe_numbers(cluster: Cluster) -> Findings:
    """Periods and limits are positive, an answer is waited for no longer than a period, and nothing starts blind."""
    for pod, _, kind, probe in probes(cluster):
        if min(setting(probe, key) for key in DEFAULTS) < 1:
            yield pod.title, f"{kind} has a number below 1"
        if setting(probe, "timeoutSeconds") == 1:
            yield pod.title, f"{kind} waits for one second, the default: busy cores answer later"
        if setting(probe, "timeoutSeconds") > setting(probe, "periodSeconds"):
            yield pod.title, f"{kind} waits longer for an answer than its period"
        if kind != "readinessProbe" and setting(probe, "successThreshold") != 1:
            yield pod.title, f"{kind}: successThreshold must be 1"
        if probe.get("initialDelaySeconds"):
            yield pod.title, f"{kind}: initialDelaySeconds hides a quick start: the startup probe is for that"


@rule("startup-budget")
def startup_budget(cluster: Cluster) -> Findings:
    """Starting up gets the time that its role needs."""
    for pod, container in cluster.containers():
        probe = container.spec.get("startupProbe")
        if probe is not None and pod.role in STARTUP:
            budget = setting(probe, "periodSeconds") * setting(probe, "failureThreshold")
            if budget < STARTUP[pod.role]:
                yield pod.title, f"may start for {budget} s, want {STARTUP[pod.role]} s"


@rule("liveness-own")
def liveness_own(cluster: Cluster) -> Findings:
    """Nobody is killed for what others do: health that depends on peers is for readiness."""
    for pod, container in cluster.containers():
        for kind in ("startupProbe", "livenessProbe"):
            if pod.role in HEALTH_OF_PEERS and "grpc" in (container.spec.get(kind) or {}):
                yield pod.title, f"{kind}: an actor's gRPC health says whether it is attached to a rank"
        ready, live = (container.spec.get(kind) for kind in ("readinessProbe", "livenessProbe"))
        if live is not None and setting(live, "periodSeconds") * setting(live, "failureThreshold") < 60:
            yield pod.title, "livenessProbe kills within a minute: a step may keep every core busy for as long"
        if ready is not None and ready.get("httpGet"):
            yield pod.title, "readinessProbe: that a page is served says nothing of being ready"


@rule("grace-covers-drain")
def grace_covers_drain(cluster: Cluster) -> Findings:
    """The grace period covers the sum of what the program may do after SIGTERM, and a margin."""
    for pod, container in cluster.containers():
        if pod.role not in STARTUP:
            continue
        needed = float(DRAIN_MARGIN)
        for _, amount in drain(pod.role):
            if isinstance(amount, str):
                value = container.flags.get(amount, "")
                needed += float(value) if value.replace(".", "", 1).isdigit() else float("inf")
            else:
                needed += amount
        grace = pod.spec.get("terminationGracePeriodSeconds", 30)
        if grace < needed:
            yield pod.title, f"terminationGracePeriodSeconds is {grace}, draining may take {needed:g} s"


@rule("no-hooks")
def no_hooks(cluster: Cluster) -> Findings:
    """No hooks: their time counts inside the grace period, and the programs drain by themselves."""
    for pod, container in cluster.containers():
        if "lifecycle" in container.spec or container.spec.get("stdin") or container.spec.get("tty"):
            yield pod.title, f"container {container.name} has hooks or a terminal"
