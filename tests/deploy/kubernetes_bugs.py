#!/usr/bin/env python3
"""Bugs planted into rendered manifests, each with the rule that must name it.

    python3 tests/deploy/kubernetes_bugs.py            writes docs/proof/kubernetes_bugs.md
    python3 tests/deploy/kubernetes_bugs.py --check    only says whether it is out of date

A bug is data: the object, a JSON pointer into it, and the new value. Most are taken from what goes wrong in practice
and what strict schemas let pass.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "deploy"))
import written_files  # noqa: E402  # its folder is known from here on

Object = dict[str, Any]
Edit = Callable[[list[Object]], None]
PAGE = os.path.join("docs", "proof", "kubernetes_bugs.md")


def found(things: list[Object], title: str) -> Object:
    """The object "Kind/name"; the last part of a name may be left out where kustomize adds a hash."""
    kind, _, name = title.partition("/")
    for thing in things:
        if thing["kind"] == kind and (thing["metadata"]["name"] == name or
                                      (name.endswith("*") and thing["metadata"]["name"].startswith(name[:-1]))):
            return thing
    raise KeyError(title)


def step(node: Any, key: str) -> Any:
    return int(key) if isinstance(node, list) else key.replace("~1", "/")


def parent(things: list[Object], title: str, pointer: str) -> tuple[Any, Any]:
    """The container that a pointer leads into, and the last key."""
    *path, last = pointer.strip("/").split("/")
    node: Any = found(things, title)
    for key in path:
        node = node[step(node, key)]
    return node, last if isinstance(node, list) and last == "-" else step(node, last)


def put(title: str, pointer: str, value: Any) -> Edit:
    """Sets a value, or appends it to a list ("-")."""
    def edit(things: list[Object]) -> None:
        node, key = parent(things, title, pointer)
        if key == "-":
            node.append(value)
        else:
            node[key] = value
    return edit


def cut(title: str, pointer: str) -> Edit:
    """Takes a value away, which must be there."""
    def edit(things: list[Object]) -> None:
        node, key = parent(things, title, pointer)
        del node[key]
    return edit


def drop(title: str) -> Edit:
    return lambda things: things.remove(found(things, title))


def twin(title: str, **changes: Any) -> Edit:
    """Adds a copy of an object with other metadata."""
    def edit(things: list[Object]) -> None:
        other = copy.deepcopy(found(things, title))
        other["metadata"].update(changes)
        things.append(other)
    return edit


def add(thing: Object) -> Edit:
    return lambda things: things.append(thing)


def arg(title: str, old: str, new: str | None, container: str = "/spec/template/spec/containers/0") -> Edit:
    """Replaces an argument, which must be there; None takes it away."""
    def edit(things: list[Object]) -> None:
        node, key = parent(things, title, f"{container}/args")
        index = node[key].index(old)
        node[key][index:index + 1] = [] if new is None else [new]
    return edit


@dataclass(frozen=True)
class Bug:
    rule: str
    what: str
    edits: tuple[Edit, ...]


def bug(rule: str, what: str, *edits: Edit) -> Bug:
    return Bug(rule, what, edits)


COORDINATOR, RANK = "StatefulSet/sluice-coordinator", "StatefulSet/sluice-rank"
REWARD, ACTOR, JOB = "Deployment/sluice-reward", "Deployment/sluice-actor", "JobSet/sluice-job"
POD = "/spec/template/spec"
BOX = POD + "/containers/0"
JOB_RANK = "/spec/replicatedJobs/1/template/spec"
JOB_BOX = JOB_RANK + "/template/spec/containers/0"
RUNTIME, STEPS = "TrainingRuntime/sluice", "/spec/template/spec/replicatedJobs"
NODE = f"{STEPS}/0/template/spec"
NODE_BOX, TRAIN_ACTOR_BOX = f"{NODE}/template/spec/containers/0", f"{STEPS}/1/template/spec/template/spec/containers/0"
NAME, COMPONENT = "app.kubernetes.io~1name", "app.kubernetes.io~1component"

BUGS = (
    # Names.
    bug("name-legal", "an object's name with a capital letter", put(REWARD, "/metadata/name", "Sluice-reward")),
    bug("name-legal", "a Service's name with an underscore",
        put("Service/sluice-reward", "/metadata/name", "sluice_reward")),
    bug("label-legal", "a label's value with a space", put(ACTOR, "/metadata/labels/team", "search and ads")),
    bug("label-legal", "a label's value that YAML reads as a number", put(ACTOR, "/metadata/labels/cost-centre", 4711)),
    bug("object-once", "the same Service in two files", twin("Service/sluice-reward")),
    bug("one-namespace", "an object in namespace default",
        put("Service/sluice-reward", "/metadata/namespace", "default")),
    bug("one-namespace", "a component whose objects got no namespace", cut(JOB, "/metadata/namespace")),
    bug("namespace-restricted", "the namespace enforces baseline only",
        put("Namespace/sluice", "/metadata/labels/pod-security.kubernetes.io~1enforce", "baseline")),
    bug("namespace-restricted", "the pod standard of whatever release the cluster is",
        put("Namespace/sluice", "/metadata/labels/pod-security.kubernetes.io~1enforce-version", "latest")),
    bug("labels-recommended", "a policy that nobody finds by its labels",
        cut("NetworkPolicy/sluice-rank", "/metadata/labels")),
    bug("labels-recommended", "pods without the label of their version",
        cut(REWARD, "/spec/template/metadata/labels/app.kubernetes.io~1version")),
    # References.
    bug("selector-matches-pods", "a Deployment selects labels that its template does not have",
        put(ACTOR, f"/spec/selector/matchLabels/{COMPONENT}", "actors")),
    bug("selector-matches-pods", "a selector without the component takes in everybody's pods",
        cut(ACTOR, f"/spec/selector/matchLabels/{COMPONENT}")),
    bug("selector-stable", "the version in a selector", put(
        REWARD, "/spec/selector/matchLabels/app.kubernetes.io~1version", "0.1.0")),
    bug("selector-whole", "a Service over every program's pods of that component",
        cut("Service/sluice-coordinator", f"/spec/selector/{NAME}")),
    bug("selector-whole", "a policy about whatever is called actor",
        cut("NetworkPolicy/sluice-actor", f"/spec/podSelector/matchLabels/{NAME}")),
    bug("selector-whole", "actors spread as if all pods of the service were actors",
        cut(ACTOR, f"{POD}/topologySpreadConstraints/1/labelSelector/matchLabels/{COMPONENT}")),
    bug("service-selects-pods", "a typing error in a Service's selector",
        put("Service/sluice-reward", f"/spec/selector/{COMPONENT}", "rewards")),
    bug("service-port-served", "a Service leads to a port by a name that no container has",
        put("Service/sluice-reward", "/spec/ports/0/targetPort", "http")),
    bug("service-port-served", "a Service leads to a number that no container has",
        put("Service/sluice-coordinator", "/spec/ports/0/targetPort", 7700)),
    bug("service-port-served", "a Service under another number than its pods",
        put("Service/sluice-reward", "/spec/ports/0/port", 80)),
    bug("governing-service", "serviceName of a Service that is not there",
        put(RANK, "/spec/serviceName", "sluice-ranks")),
    bug("governing-service", "the governing Service has a virtual address",
        cut("Service/sluice-rank", "/spec/clusterIP")),
    bug("budget-once", "no disruption budget for the reward servers", drop("PodDisruptionBudget/sluice-reward")),
    bug("budget-once", "two budgets over the same pods: evictions fail",
        twin("PodDisruptionBudget/sluice-actor", name="sluice-actors")),
    bug("budget-once", "a budget that selects nobody",
        put("PodDisruptionBudget/sluice-rank", f"/spec/selector/matchLabels/{COMPONENT}", "learner")),
    bug("budget-allows-drain", "a budget that forbids every drain",
        put("PodDisruptionBudget/sluice-rank", "/spec/maxUnavailable", 0)),
    bug("budget-allows-drain", "minAvailable 1 with one replica",
        cut("PodDisruptionBudget/sluice-reward", "/spec/maxUnavailable"),
        put("PodDisruptionBudget/sluice-reward", "/spec/minAvailable", 1)),
    bug("budget-allows-drain", "both fields at once", put("PodDisruptionBudget/sluice-actor", "/spec/minAvailable", 1)),
    bug("budget-ignores-unhealthy", "unready actors hold a drain up",
        cut("PodDisruptionBudget/sluice-actor", "/spec/unhealthyPodEvictionPolicy")),
    bug("claim-exists", "a claim's name with a typing error",
        put(RANK, f"{POD}/volumes/0/persistentVolumeClaim/claimName", "sluice-share")),
    bug("claim-fits-pods", "three ranks on a claim of one node",
        put(RANK, "/spec/replicas", 3), arg(COORDINATOR, "--ranks=1", "--ranks=3")),
    bug("claim-fits-pods", "the shared claim for one pod alone",
        put("PersistentVolumeClaim/sluice-shared", "/spec/accessModes", ["ReadWriteOncePod"])),
    bug("claim-fits-pods", "a claim that nobody mounts",
        twin("PersistentVolumeClaim/sluice-shared", name="sluice-old")),
    bug("config-exists", "the job's ConfigMap is missing", drop("ConfigMap/sluice-job-*")),
    bug("config-exists", "a Secret that this release has not",
        put(ACTOR, f"{POD}/volumes/-", {"name": "tls", "secret": {"secretName": "sluice-tls"}}),
        put(ACTOR, f"{BOX}/volumeMounts/-", {"name": "tls", "mountPath": "/etc/tls"})),
    bug("account-own", "the account of another role", put(ACTOR, f"{POD}/serviceAccountName", "sluice-rank")),
    bug("account-own", "the namespace's default account", cut(REWARD, f"{POD}/serviceAccountName")),
    bug("priority-exists", "a priority class that is not there", put(RANK, f"{POD}/priorityClassName", "high")),
    bug("priority-exists", "one role without a priority class", cut(REWARD, f"{POD}/priorityClassName")),
    bug("priority-exists", "actors before the coordinator", put("PriorityClass/sluice-actor", "/value", 900000)),
    bug("autoscaler-alone", "replicas beside an autoscaler", put(ACTOR, "/spec/replicas", 4)),
    bug("autoscaler-alone", "an autoscaler of a Deployment that is not there",
        put("ScaledObject/sluice-actor", "/spec/scaleTargetRef/name", "sluice-actors")),
    bug("autoscaler-alone", "neither replicas nor an autoscaler", cut(REWARD, "/spec/replicas")),
    bug("autoscaler-alone", "fewest above most", put("ScaledObject/sluice-actor", "/spec/minReplicaCount", 64)),
    # Pods.
    bug("user-unprivileged", "runs as root", put(ACTOR, f"{POD}/securityContext/runAsUser", 0)),
    bug("user-unprivileged", "a container that overrides its pod",
        put(RANK, f"{BOX}/securityContext/runAsNonRoot", False)),
    bug("user-unprivileged", "claims that belong to root's group", cut(RANK, f"{POD}/securityContext/fsGroup")),
    bug("seccomp-default", "a misspelt seccomp type, which schemas let pass",
        put(REWARD, f"{POD}/securityContext/seccompProfile/type", "RuntimeDefualt")),
    bug("seccomp-default", "no filter of system calls",
        put(ACTOR, f"{BOX}/securityContext/seccompProfile", {"type": "Unconfined"})),
    bug("no-escalation", "may gain rights", cut(COORDINATOR, f"{BOX}/securityContext/allowPrivilegeEscalation")),
    bug("no-escalation", "a privileged container", put(RANK, f"{BOX}/securityContext/privileged", True)),
    bug("no-capabilities", "IPC_LOCK for an adapter that nothing uses yet",
        put(RANK, f"{BOX}/securityContext/capabilities/add", ["IPC_LOCK"])),
    bug("no-capabilities", "drops some capabilities only",
        put(RANK, f"{BOX}/securityContext/capabilities/drop", ["NET_RAW"])),
    bug("root-read-only", "a writable root", put(REWARD, f"{BOX}/securityContext/readOnlyRootFilesystem", False)),
    bug("no-host", "the node's network, for speed", put(RANK, f"{POD}/hostNetwork", True)),
    bug("no-host", "the node's /dev/shm",
        put(RANK, f"{POD}/volumes/1", {"name": "shm", "hostPath": {"path": "/dev/shm"}})),
    bug("no-host", "a port of the node", put(REWARD, f"{BOX}/ports/0/hostPort", 7080)),
    bug("no-api-rights", "a Role", add({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": [],
                                        "metadata": {"name": "sluice", "namespace": "sluice", "labels": {}}})),
    bug("no-api-rights", "a token mounted into an actor", cut(ACTOR, f"{POD}/automountServiceAccountToken")),
    bug("no-api-rights", "an account that mounts its token",
        put("ServiceAccount/sluice-reward", "/automountServiceAccountToken", True)),
    bug("environment-plain", "a variable of ours that no process reads",
        put(ACTOR, f"{BOX}/env", [{"name": "SLUICE_THREADS", "value": "8"}])),
    bug("environment-plain", "NCCL's environment, which was never tried",
        put(RANK, f"{BOX}/env/-", {"name": "NCCL_IB_HCA", "value": "mlx5"})),
    bug("environment-plain", "an argument refers to a variable that is not set", cut(RANK, f"{BOX}/env")),
    bug("environment-plain", "a secret in the environment", put(ACTOR, f"{BOX}/env", [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}}])),
    bug("environment-plain", "keys of the object store for actors", put(ACTOR, f"{BOX}/env", [
        {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "sluice-object-store", "key": "access-key-id"}}}])),
    bug("environment-plain", "a key of the object store as it is", put(RANK, f"{BOX}/env/1", {
        "name": "AWS_ACCESS_KEY_ID", "value": "AKIAEXAMPLE"})),
    bug("environment-plain", "variables from a whole ConfigMap",
        put(ACTOR, f"{BOX}/envFrom", [{"configMapRef": {"name": "x"}}])),
    bug("environment-plain", "every Service as variables", cut(ACTOR, f"{POD}/enableServiceLinks")),
    bug("image-fixed", "tag latest", put(REWARD, f"{BOX}/image", "registry.example.com/sluice/sluice:latest")),
    bug("image-fixed", "no tag", put(REWARD, f"{BOX}/image", "registry.example.com/sluice/sluice")),
    bug("image-fixed", "a component after the images: the name of the base is left",
        put(JOB, f"{JOB_BOX}/image", "sluice")),
    bug("image-fixed", "a digest that is too short",
        put(REWARD, f"{BOX}/image", "registry.example.com/sluice/sluice@sha256:12ab")),
    bug("image-fixed", "imagePullPolicy Always", put(ACTOR, f"{BOX}/imagePullPolicy", "Always")),
    bug("image-fixed", "a pull policy that is none, which schemas let pass",
        put(ACTOR, f"{BOX}/imagePullPolicy", "Sometimes")),
    bug("image-digest-in-production", "one image of a release by its tag",
        put(REWARD, f"{BOX}/image", "registry.example.com/sluice/sluice@sha256:set-by-release.py")),
    bug("image-version-label", "a new image under the old label",
        put(REWARD, f"{BOX}/image", "registry.example.com/sluice/sluice:0.2.0")),
    bug("resources-set", "no limit on memory", cut(ACTOR, f"{BOX}/resources/limits/memory")),
    bug("resources-set", "no request of CPU", cut(RANK, f"{BOX}/resources/requests/cpu")),
    bug("resources-set", "a limit on CPU, which delays heartbeats", put(RANK, f"{BOX}/resources/limits/cpu", "4")),
    bug("resources-legal", "memory '10 Gi', which schemas let pass",
        put(RANK, f"{BOX}/resources/limits/memory", "10 Gi")),
    bug("resources-legal", "one and a half GPUs", put(RANK, f"{BOX}/resources/limits/nvidia.com~1gpu", "1.5")),
    bug("resources-legal", "more requested than allowed", put(REWARD, f"{BOX}/resources/requests/memory", "64Gi")),
    bug("resources-legal", "a claim of no size",
        put("PersistentVolumeClaim/sluice-state", "/spec/resources/requests/storage", "0")),
    bug("threads-fit", "sixteen threads on one CPU", arg(RANK, "--threads=1", "--threads=16")),
    bug("gpu-and-device", "cuda without a GPU", cut(RANK, f"{BOX}/resources/limits/nvidia.com~1gpu")),
    bug("gpu-and-device", "a GPU that nothing computes on", arg(ACTOR, "--device=cuda:0", None)),
    bug("gpu-and-device", "the image for processors on cuda",
        put(ACTOR, f"{BOX}/image", "registry.example.com/sluice/sluice:0.1.0")),
    bug("gpu-and-device", "no toleration: the pod stays pending", cut(RANK, f"{POD}/tolerations")),
    bug("mounts-and-volumes", "a mount of a volume that is not declared",
        put(ACTOR, f"{BOX}/volumeMounts/0/name", "shmem")),
    bug("mounts-and-volumes", "a volume that nobody mounts",
        put(ACTOR, f"{POD}/volumes/-", {"name": "x", "emptyDir": {"sizeLimit": "1Mi"}})),
    bug("mounts-and-volumes", "a volume without a source", cut(RANK, f"{POD}/volumes/2/emptyDir")),
    bug("mounts-and-volumes", "two mounts at one path", put(RANK, f"{BOX}/volumeMounts/1/mountPath", "/tmp")),
    bug("mounts-and-volumes", "certificates inside the job's ConfigMap, where nobody can make their folder",
        put(JOB, f"{JOB_BOX}/volumeMounts/0/mountPath", "/etc/sluice")),
    bug("scratch-bounded", "memory for /dev/shm without an end", cut(RANK, f"{POD}/volumes/1/emptyDir/sizeLimit")),
    bug("scratch-bounded", "/dev/shm as large as the memory limit",
        put(RANK, f"{POD}/volumes/1/emptyDir/sizeLimit", "16Gi")),
    bug("scratch-bounded", "a read-only root and no /tmp",
        cut(REWARD, f"{BOX}/volumeMounts/1"), cut(REWARD, f"{POD}/volumes/1")),
    bug("shared-memory", "/dev/shm on disk", cut(RANK, f"{POD}/volumes/1/emptyDir/medium")),
    bug("shared-memory", "no /dev/shm", cut(ACTOR, f"{BOX}/volumeMounts/0"), cut(ACTOR, f"{POD}/volumes/0")),
    bug("spread", "all reward servers may land on one node", cut(REWARD, f"{POD}/topologySpreadConstraints")),
    bug("spread", "spread by another role's labels", put(
        ACTOR, f"{POD}/topologySpreadConstraints/0/labelSelector/matchLabels/{COMPONENT}", "reward")),
    bug("spread", "pods wait for an even spread",
        put(ACTOR, f"{POD}/topologySpreadConstraints/1/whenUnsatisfiable", "DoNotSchedule")),
    bug("affinity-own", "ranks near actors instead of ranks", put(
        RANK, f"{POD}/affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm"
        f"/labelSelector/matchLabels/{COMPONENT}", "actor")),
    bug("affinity-own", "ranks that wait for a place in the same rack", put(
        RANK, f"{POD}/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution", [])),
    bug("ranks-stay", "autoscalers move ranks", cut(
        RANK, "/spec/template/metadata/annotations/cluster-autoscaler.kubernetes.io~1safe-to-evict")),
    bug("container-names", "two containers in a pod",
        put(REWARD, f"{POD}/containers/-", {"name": "sidecar", "image": "x"})),
    bug("container-names", "port 99999, which schemas let pass", put(REWARD, f"{BOX}/ports/0/containerPort", 99999)),
    bug("dashboards-found", "a dashboard that the sidecar does not find",
        cut("ConfigMap/sluice-overview", "/metadata/labels/grafana_dashboard")),
    bug("dashboards-found", "a ConfigMap larger than a server takes",
        put("ConfigMap/sluice-overview", "/data/sluice-overview.json", " " * 1_000_000)),
    # Probes and drains.
    bug("probes-three", "no startup probe", cut(REWARD, f"{BOX}/startupProbe")),
    bug("probe-port", "a gRPC probe by the port's name", put(RANK, f"{BOX}/livenessProbe/grpc/port", "grpc")),
    bug("probe-port", "a probe of a port that is not there", put(COORDINATOR, f"{BOX}/readinessProbe/grpc/port", 7700)),
    bug("probe-question", "gRPC health at the port of metrics", put(REWARD, f"{BOX}/livenessProbe/grpc/port", 7081)),
    bug("probe-question", "a probe without TLS at the port with it", put(REWARD, f"{BOX}/readinessProbe/grpc/port", 7080)),
    bug("probe-question", "a health service that no process has",
        put(RANK, f"{BOX}/readinessProbe/grpc/service", "sluice-readiness")),
    bug("probe-question", "/healthz, which nothing serves",
        put(ACTOR, f"{BOX}/livenessProbe/httpGet/path", "/healthz")),
    bug("probe-numbers", "periodSeconds -5, which schemas let pass",
        put(RANK, f"{BOX}/livenessProbe/periodSeconds", -5)),
    bug("probe-numbers", "an answer waited for longer than a period",
        put(RANK, f"{BOX}/livenessProbe/timeoutSeconds", 30)),
    bug("probe-numbers", "a liveness probe that waits for one second",
        cut(RANK, f"{BOX}/livenessProbe/timeoutSeconds")),
    bug("probe-numbers", "a long blind start", put(REWARD, f"{BOX}/readinessProbe/initialDelaySeconds", 300)),
    bug("startup-budget", "rankers get 30 s to load", put(REWARD, f"{BOX}/startupProbe/failureThreshold", 6)),
    bug("liveness-own", "actors are killed while no learner is there",
        put(ACTOR, f"{BOX}/livenessProbe", {"grpc": {"port": 7100}, "timeoutSeconds": 5, "failureThreshold": 12})),
    bug("liveness-own", "a rank is killed by one long step", put(RANK, f"{BOX}/livenessProbe/failureThreshold", 1)),
    bug("grace-covers-drain", "the default of 30 s for a rank's checkpoint",
        cut(RANK, f"{POD}/terminationGracePeriodSeconds")),
    bug("grace-covers-drain", "a longer drain in the same grace period",
        arg(ACTOR, "--drain-timeout=25", "--drain-timeout=600")),
    bug("grace-covers-drain", "a coordinator that is killed while it drains",
        put(COORDINATOR, f"{POD}/terminationGracePeriodSeconds", 60)),
    bug("grace-covers-drain", "a one-shot learner with a minute for its checkpoint",
        put(JOB, f"{JOB_RANK}/template/spec/terminationGracePeriodSeconds", 60)),
    bug("no-hooks", "a preStop that sleeps inside the grace period",
        put(ACTOR, f"{BOX}/lifecycle", {"preStop": {"sleep": {"seconds": 20}}})),
    # Command lines.
    bug("command-of-role", "the reward server's program in an actor's pod",
        put(ACTOR, f"{BOX}/command", ["sluice-reward"])),
    bug("command-of-role", "a component that is none",
        put(REWARD, f"/spec/template/metadata/labels/{COMPONENT}", "ranker")),
    bug("command-of-role", "a resident rank runs one job", arg(RANK, "rank", "run")),
    bug("flags-known", "a flag that this release does not have",
        put(RANK, f"{BOX}/args/-", "--tls-certificate=/etc/tls/tls.crt")),
    bug("flags-known", "a flag of another subcommand", put(RANK, f"{BOX}/args/-", "--drain-seconds=60")),
    bug("flags-known", "a number out of range", arg(ACTOR, "--threads=1", "--threads=0")),
    bug("flags-known", "a word where a number belongs", arg(COORDINATOR, "--drain-seconds=60", "--drain-seconds=60s")),
    bug("flags-known", "a flag given twice", put(RANK, f"{BOX}/args/-", "--threads=1")),
    bug("flags-needed", "a reward server without data", arg(REWARD, "--data=/srv/sluice/data/current", None)),
    bug("flags-needed", "an actor with nobody to work for", arg(ACTOR, "--coordinator=sluice-coordinator:7070", None)),
    bug("flags-needed", "no metrics", arg(RANK, "--metrics-address=0.0.0.0:7091", None)),
    bug("log-json", "logs as text", arg(REWARD, "--log-format=json", None)),
    bug("device-legal", "a device that is none", arg(RANK, "--device=cuda:0", "--device=cuda")),
    # Security.
    bug("secured", "a key without its certificate", arg(RANK, "--tls-cert=/etc/sluice/tls/tls.crt", None)),
    bug("secured", "certificates and --insecure", put(ACTOR, f"{BOX}/args/-", "--insecure")),
    bug("secured", "a one-shot learner in the clear", arg(JOB, "--tls-ca=/etc/sluice/tls/ca.crt", "--insecure", JOB_BOX),
        arg(JOB, "--tls-cert=/etc/sluice/tls/tls.crt", None, JOB_BOX), arg(JOB, "--tls-key=/etc/sluice/tls/tls.key", None, JOB_BOX)),
    bug("secured", "a certificate for another role", put("Certificate/sluice-rank", "/spec/dnsNames", ["actor.sluice.internal"])),
    bug("secured", "a one-shot actor with the certificate of ranks", put(
        JOB, "/spec/replicatedJobs/2/template/spec/template/spec/volumes/2/secret/secretName", "sluice-rank-tls")),
    bug("secured", "a key that no Certificate writes",
        arg(REWARD, "--tls-key=/etc/sluice/tls/tls.key", "--tls-key=/srv/sluice/tls.key")),
    bug("secured", "the certificate where its key belongs",
        arg(REWARD, "--tls-key=/etc/sluice/tls/tls.key", "--tls-key=/etc/sluice/tls/tls.crt")),
    bug("tokens-there", "tokens on the claim of the job store",
        arg(COORDINATOR, "--tokens=/etc/sluice/tokens/tokens", "--tokens=/var/lib/sluice/tokens")),
    bug("tokens-there", "tokens under another key than the Secret's",
        arg(COORDINATOR, "--tokens=/etc/sluice/tokens/tokens", "--tokens=/etc/sluice/tokens/people")),
    bug("secrets-private", "a key that every user of the container may read",
        put(RANK, f"{POD}/volumes/3/secret/defaultMode", 0o644)),
    bug("secrets-private", "a key with the mode that Kubernetes gives by itself", cut(ACTOR, f"{POD}/volumes/2/secret/defaultMode")),
    bug("secrets-private", "tokens by subPath, so that none is ever taken away",
        put(COORDINATOR, f"{BOX}/volumeMounts/4/subPath", "tokens")),
    bug("secrets-private", "a coordinator that starts without its tokens",
        put(COORDINATOR, f"{POD}/volumes/4/secret/optional", True)),
    bug("secrets-private", "actors see who has tokens", put(ACTOR, f"{POD}/volumes/2/secret/secretName", "sluice-tokens")),
    bug("secrets-private", "the authority's key in a pod", put(REWARD, f"{POD}/volumes/2/secret/secretName", "sluice-ca")),
    bug("secrets-private", "certificates that the process may write over", cut(RANK, f"{BOX}/volumeMounts/3/readOnly")),
    bug("secrets-elsewhere", "a Secret among the manifests", add({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"tokens": ""},
        "metadata": {"name": "sluice-tokens", "namespace": "sluice", "labels": {}}})),
    bug("secrets-elsewhere", "somebody's token in an annotation", put(
        ACTOR, "/metadata/annotations", {"note": "sluice_" + "A1b2C3d4" * 5 + "xyz"})),
    bug("secrets-elsewhere", "a key in the job's ConfigMap",
        put("ConfigMap/sluice-job-*", "/data/tls.key", "-----BEGIN " + "PRIVATE KEY-----\n")),
    bug("certificate-usable", "an issuer that is not there", put("Certificate/sluice-actor", "/spec/issuerRef/name", "lets-encrypt")),
    bug("certificate-usable", "the authority's Secret by another name", put("Certificate/sluice-ca", "/spec/secretName", "sluice-root")),
    bug("certificate-usable", "two roles in one Secret", put("Certificate/sluice-client", "/spec/secretName", "sluice-rank-tls")),
    bug("certificate-usable", "the name of a host where a role belongs",
        put("Certificate/sluice-reward", "/spec/dnsNames", ["sluice-reward.sluice.svc"])),
    bug("certificate-usable", "a certificate that cannot call", put("Certificate/sluice-rank", "/spec/usages", ["server auth"])),
    bug("certificate-usable", "the same key for ever", cut("Certificate/sluice-rank", "/spec/privateKey/rotationPolicy")),
    bug("certificate-usable", "renewed a day before its end, when the alert has fired for long",
        put("Certificate/sluice-coordinator", "/spec/renewBefore", "24h")),
    # Addresses and folders.
    bug("listens-outside", "health at a port that is not declared",
        arg(REWARD, "--health-address=0.0.0.0:7082", "--health-address=0.0.0.0:7083")),
    bug("listens-outside", "listens on loopback", arg(REWARD, "--address=0.0.0.0:7080", "--address=127.0.0.1:7080")),
    bug("listens-outside", "listens at another port than it declares",
        arg(COORDINATOR, "--address=0.0.0.0:7070", "--address=0.0.0.0:7000")),
    bug("rank-reachable", "a rank tells actors 0.0.0.0",
        arg(RANK, "--address=$(POD_IP):7090", "--address=0.0.0.0:7090")),
    bug("rank-reachable", "a rank tells the others loopback",
        arg(RANK, "--collective-host=$(POD_IP)", "--collective-host=127.0.0.1")),
    bug("rank-reachable", "the node's address instead of the pod's",
        put(RANK, f"{BOX}/env/0/valueFrom/fieldRef/fieldPath", "status.hostIP")),
    bug("peers-there", "a coordinator that is not there",
        arg(RANK, "--coordinator=sluice-coordinator:7070", "--coordinator=coordinator:7070")),
    bug("peers-there", "the reward server at another port",
        arg(ACTOR, "--reward=sluice-reward:7080", "--reward=sluice-reward:7071")),
    bug("peers-there", "a headless reward server: all actors stay with one pod",
        put("Service/sluice-reward", "/spec/clusterIP", "None")),
    bug("peers-there", "a one-shot learner by a name that JobSet does not give",
        arg(JOB, "--learner=sluice-job-rank-0-0.sluice-job:7090", "--learner=sluice-job-learner-0-0.sluice-job:7090",
            "/spec/replicatedJobs/2/template/spec/template/spec/containers/0")),
    bug("peers-there", "a one-shot job's reward server by the name of its first pod",
        arg(JOB, "--reward=sluice-job-reward:7080", "--reward=sluice-job-reward-0-0.sluice-job:7080",
            "/spec/replicatedJobs/2/template/spec/template/spec/containers/0")),
    bug("peers-there", "a one-shot job's actors with the resident reward servers, which they may not reach",
        put("Service/sluice-job-reward", f"/spec/selector/{COMPONENT}", "reward"),
        cut("Service/sluice-job-reward", "/spec/selector/jobset.sigs.k8s.io~1jobset-name")),
    bug("ranks-counted", "more ranks than the coordinator waits for", put(RANK, "/spec/replicas", 2)),
    bug("ranks-counted", "two coordinators", put(COORDINATOR, "/spec/replicas", 2)),
    bug("folders-mounted", "run folders that are gone with the pod",
        arg(COORDINATOR, "--runs=/srv/sluice/runs", "--runs=/var/runs")),
    bug("folders-mounted", "a job store on a read-only mount",
        put(COORDINATOR, f"{BOX}/volumeMounts/0/readOnly", True)),
    bug("folders-mounted", "a reward server that may write to the data", cut(REWARD, f"{BOX}/volumeMounts/0/readOnly")),
    bug("runs-shared", "ranks see the run folders under another path",
        put(RANK, f"{BOX}/volumeMounts/0/mountPath", "/data")),
    bug("runs-shared", "ranks see another part of the claim", put(RANK, f"{BOX}/volumeMounts/0/subPath", "ranks")),
    bug("runs-shared", "SQLite where two pods may write",
        put("PersistentVolumeClaim/sluice-state", "/spec/accessModes", ["ReadWriteMany"])),
    bug("runs-shared", "the job store among the run folders",
        arg(COORDINATOR, "--state=/var/lib/sluice", "--state=/srv/sluice/state")),
    # Network.
    bug("policy-denies-all", "nothing denies what is not allowed", drop("NetworkPolicy/sluice-deny")),
    bug("policy-denies-all", "pods outside every policy",
        put(ACTOR, f"/spec/template/metadata/labels/{NAME}", "sluice-actor")),
    bug("policy-both-ways", "a policy that leaves egress open",
        put("NetworkPolicy/sluice-rank", "/spec/policyTypes", ["Ingress"])),
    bug("policy-selects-pods", "a policy about nobody",
        put("NetworkPolicy/sluice-reward", f"/spec/podSelector/matchLabels/{COMPONENT}", "ranker")),
    bug("edge-missing", "actors may not reach the reward server",
        cut("NetworkPolicy/sluice-reward", "/spec/ingress/0")),
    bug("edge-missing", "allowed at one end only", cut("NetworkPolicy/sluice-actor", "/spec/egress/2")),
    bug("edge-missing", "DNS over TCP alone", cut("NetworkPolicy/sluice-actor", "/spec/egress/3/ports/0")),
    bug("edge-missing", "no DNS for ranks", cut("NetworkPolicy/sluice-rank", "/spec/egress/2")),
    bug("edge-missing", "ranks reach one another at the declared port alone",
        put("NetworkPolicy/sluice-rank", "/spec/ingress/1/ports", [{"protocol": "TCP", "port": 7090}])),
    bug("edge-missing", "Prometheus cannot scrape actors", cut("NetworkPolicy/sluice-actor", "/spec/ingress")),
    bug("edge-extra", "anyone may reach the coordinator",
        cut("NetworkPolicy/sluice-coordinator", "/spec/ingress/0/from")),
    bug("edge-extra", "every namespace may scrape",
        put("NetworkPolicy/sluice-reward", "/spec/ingress/1/from/0/namespaceSelector", {})),
    bug("edge-extra", "the world is open to actors",
        put("NetworkPolicy/sluice-actor", "/spec/egress/-", {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})),
    bug("edge-extra", "actors at every port of a rank", cut("NetworkPolicy/sluice-rank", "/spec/ingress/0/ports")),
    bug("edge-extra", "ranks may ask the cloud's metadata for its rights",
        put("NetworkPolicy/sluice-rank-store", "/spec/egress/0/to/0/ipBlock/except", ["10.0.0.0/8"])),
    bug("edge-extra", "an edge to an object store that nobody has keys of", cut(RANK, f"{BOX}/env/2"), cut(RANK, f"{BOX}/env/1")),
    bug("edge-missing", "keys of an object store that ranks may not reach", drop("NetworkPolicy/sluice-rank-store")),
    bug("edge-missing", "keys of an object store whose name a one-shot learner may not ask for",
        cut("NetworkPolicy/sluice-job-rank-store", "/spec/egress/1")),
    bug("edge-extra", "DNS for a one-shot learner that has nobody to look for", cut(JOB, f"{JOB_BOX}/env"),
        cut("NetworkPolicy/sluice-job-rank-store", "/spec/egress/0")),
    bug("edge-extra", "a one-shot learner without keys at the object store", cut(JOB, f"{JOB_BOX}/env")),
    bug("edge-port-served", "an edge to a port that moved",
        put("NetworkPolicy/sluice-reward", "/spec/ingress/0/ports/0/port", 7071)),
    # One-shot jobs.
    bug("job-exit-codes", "a diverged job is tried again",
        put(JOB, f"{JOB_RANK}/podFailurePolicy/rules/2/onExitCodes/values", [2, 3, 4, 12, 14])),
    bug("job-exit-codes", "a preemption counts as a failure", cut(JOB, f"{JOB_RANK}/podFailurePolicy/rules/1")),
    bug("job-exit-codes", "the exit code of a container that is not there",
        put(JOB, f"{JOB_RANK}/podFailurePolicy/rules/2/onExitCodes/containerName", "learner")),
    bug("job-exit-codes", "a code that no process ends with",
        put(JOB, f"{JOB_RANK}/podFailurePolicy/rules/1/onExitCodes/values", [10, 75])),
    bug("job-evictions-free", "an eviction counts as a failure", cut(JOB, f"{JOB_RANK}/podFailurePolicy/rules/0")),
    bug("job-restarts", "containers restart in place",
        put(JOB, f"{JOB_RANK}/template/spec/restartPolicy", "OnFailure")),
    bug("job-restarts", "the first transient error is final", put(JOB, f"{JOB_RANK}/backoffLimit", 0)),
    bug("job-restarts", "pods without an index, so without names",
        put(JOB, f"{JOB_RANK}/completionMode", "NonIndexed")),
    bug("job-restarts", "a drained actor has no successor", put(JOB, "/spec/replicatedJobs/2/template/spec/completions", 4)),
    bug("job-restarts", "two learners", put(JOB, f"{JOB_RANK}/completions", 2)),
    bug("jobset-names", "a policy about a job that is not there",
        put(JOB, "/spec/failurePolicy/rules/1/targetReplicatedJobs", ["reward", "sampler"])),
    bug("jobset-names", "a dependency on a later job", put(JOB, "/spec/replicatedJobs/1/dependsOn/0/name", "actor")),
    bug("jobset-outcome", "waits for actors, which never end", cut(JOB, "/spec/successPolicy")),
    bug("jobset-outcome", "a held learner is started again by the set",
        put(JOB, "/spec/failurePolicy/rules/0/action", "RestartJobSet")),
    bug("jobset-outcome", "a new learner beside the old one",
        put(JOB, "/spec/failurePolicy/restartStrategy", "Recreate")),
    bug("job-spec-there", "a spec that the ConfigMap does not hold",
        arg(JOB, "/etc/sluice/job/job.yaml", "/etc/sluice/job/run.yaml", JOB_BOX)),
    bug("trainer-step", "a TrainJob's settings go to nobody", cut(RUNTIME, f"{STEPS}/0/template/metadata")),
    bug("trainer-step", "two learners in a TrainJob's run folder", put(RUNTIME, "/spec/mlPolicy/numNodes", 2)),
    bug("container-names", "a TrainJob's learner by a name that Trainer does not know", put(RUNTIME, f"{NODE_BOX}/name", "rank")),
    bug("job-exit-codes", "a TrainJob's preemption counts as a failure", cut(RUNTIME, f"{NODE}/podFailurePolicy/rules/1")),
    bug("job-restarts", "spare completions that Trainer takes away", put(RUNTIME, f"{STEPS}/1/template/spec/completions", 1000)),
    bug("job-spec-there", "a TrainJob's spec in the memory of its pod", put(RUNTIME, f"{NODE_BOX}/env/1/value", "/dev/shm/spec.yaml")),
    bug("jobset-outcome", "a TrainJob that waits for actors, which never end", cut(RUNTIME, "/spec/template/spec/successPolicy")),
    bug("peers-there", "a TrainJob's actors that look for another job's learner",
        arg(RUNTIME, "--learner=$(TRAINJOB)-node-0-0.$(TRAINJOB):7090", "--learner=sluice-job-rank-0-0.sluice-job:7090", TRAIN_ACTOR_BOX)),
    bug("edge-missing", "reward servers that do not let TrainJobs' actors in", drop("NetworkPolicy/sluice-reward-of-train-jobs")),
    bug("queue-starts-job", "a job that does not wait for its queue", put(JOB, "/spec/suspend", False)),
    bug("queue-starts-job", "a queue that is not there", drop("LocalQueue/sluice")),
    # Monitoring.
    bug("metrics-known", "autoscaling by a metric that nobody exports",
        put("ScaledObject/sluice-actor", "/spec/triggers/0/metadata/query",
            'max(sluice_learner_wait_ratio{job="sluice"})')),
    bug("metrics-known", "a rule on a metric of the past",
        put("PrometheusRule/sluice", "/spec/groups/1/rules/0/expr", "sluice_policy_staleness > 3")),
    bug("rules-in-step", "a threshold changed in the cluster's copy alone",
        put("PrometheusRule/sluice", "/spec/groups/1/rules/0/for", "30m")),
    bug("scrape-everyone", "actors are not scraped",
        put("PodMonitor/sluice", f"/spec/selector/matchLabels/{COMPONENT}", "rank")),
    bug("scrape-everyone", "the port of gRPC is scraped",
        put("PodMonitor/sluice", "/spec/podMetricsEndpoints/0/port", "grpc")),
    bug("scrape-everyone", "a scrape that may take longer than its period",
        put("PodMonitor/sluice", "/spec/podMetricsEndpoints/0/scrapeTimeout", "30s")),
    bug("scrape-labels", "series without a role, so no alert by role fires",
        cut("PodMonitor/sluice", "/spec/podMetricsEndpoints/0/relabelings/0")),
    bug("scrape-labels", "instances by address, so that no restart is seen",
        cut("PodMonitor/sluice", "/spec/podMetricsEndpoints/0/relabelings/1")),
    bug("scrape-labels", "job is the name of the PodMonitor", cut("PodMonitor/sluice", "/spec/jobLabel")),
    bug("scaling-query", "asks about another deployment",
        put("ScaledObject/sluice-actor", "/spec/triggers/0/metadata/query", 'max(sluice_job_running{job="sluice-b"})')),
    bug("scaling-query", "a share divided by the number of actors",
        put("ScaledObject/sluice-actor", "/spec/triggers/0/metricType", "AverageValue")),
    bug("scaling-query", "Prometheus is away, so actors are sent away",
        cut("ScaledObject/sluice-actor", "/spec/triggers/0/metadata/ignoreNullValues")),
)


def files() -> written_files.Files:
    """The page that lists the bugs."""
    rows = [f"| {one.what} | `{one.rule}` |" for one in BUGS]
    rules = len({one.rule for one in BUGS})
    return {PAGE: f"""# Bugs planted into the manifests

{len(BUGS)} bugs, one at a time, in a rendering of overlay dev-cpu with every component; the linter
(`deploy/kubernetes/lint`, {rules} rules) names each. `tests/deploy/kubernetes_test.py` plants them on every test run
and fails if one goes unnamed, if the rendering without a bug has findings, or if a rule has no bug.

| bug | named by |
| --- | --- |
""" + "\n".join(rows) + "\n\nWritten by `tests/deploy/kubernetes_bugs.py`.\n"}


def out_of_date() -> bool:
    return any(written_files.read(os.path.join(TOP, path)) != text for path, text in files().items())


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(f"{PAGE} is out of date: run python3 tests/deploy/kubernetes_bugs.py" if out_of_date() else 0)
    for path, text in files().items():
        with open(os.path.join(TOP, path), "w", encoding="utf-8") as file:
            file.write(text)
    print(f"{len(BUGS)} bugs are listed.")
