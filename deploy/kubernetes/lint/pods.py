"""Pods: what they may do, what they take, where they run, what they mount."""

from __future__ import annotations

import re

from .facts import ENVIRONMENT, SHARED_MEMORY, STORE_KEYS, STORE_ROLE, STORE_SECRET
from .objects import Cluster, Container, Findings, Object, Pod, labels, matches, quantity, rule, title

UID = 10001  # of the images
REGISTRY = re.compile(r"[\w-]+([.:][\w-]+)+/")
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
TAG = re.compile(r":(\d+\.\d+\.\d+)$")
NO_DIGEST = "@sha256:set-by-release.py"  # render.py's, in files that are there to be read
GPU = "nvidia.com/gpu"


def both(pod: Pod, container: Container, key: str) -> object:
    """A setting of security that a container has from its pod unless it has its own."""
    own = (container.spec.get("securityContext") or {}).get(key)
    return own if own is not None else (pod.spec.get("securityContext") or {}).get(key)


@rule("user-unprivileged")
def user_unprivileged(cluster: Cluster) -> Findings:
    """Containers run as the images' user, never as root, and claims belong to its group."""
    for pod, container in cluster.containers():
        found = {key: both(pod, container, key) for key in ("runAsNonRoot", "runAsUser", "runAsGroup")}
        if found != {"runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID}:
            yield pod.title, f"container {container.name}: want runAsNonRoot, user and group {UID}, got {found}"
        claims = any("persistentVolumeClaim" in volume for volume in pod.volumes.values())
        if claims and both(pod, container, "fsGroup") != UID:
            yield pod.title, f"its claims may belong to another group: want fsGroup {UID}"


@rule("seccomp-default")
def seccomp_default(cluster: Cluster) -> Findings:
    """The container runtime's filter of system calls is on."""
    for pod, container in cluster.containers():
        profile = both(pod, container, "seccompProfile")
        if profile != {"type": "RuntimeDefault"}:
            yield pod.title, f"container {container.name}: want seccompProfile RuntimeDefault, got {profile}"


@rule("no-escalation")
def no_escalation(cluster: Cluster) -> Findings:
    """No container gains rights, and none is privileged."""
    for pod, container in cluster.containers():
        context = container.spec.get("securityContext") or {}
        if context.get("allowPrivilegeEscalation") is not False:
            yield pod.title, f"container {container.name}: want allowPrivilegeEscalation: false"
        if context.get("privileged"):
            yield pod.title, f"container {container.name} is privileged"


@rule("no-capabilities")
def no_capabilities(cluster: Cluster) -> Findings:
    """All capabilities are dropped and none is added."""
    for pod, container in cluster.containers():
        found = (container.spec.get("securityContext") or {}).get("capabilities")
        if found != {"drop": ["ALL"]}:
            yield pod.title, f"container {container.name}: want capabilities drop [ALL] and nothing else, got {found}"


@rule("root-read-only")
def root_read_only(cluster: Cluster) -> Findings:
    """The root file system is read-only."""
    for pod, container in cluster.containers():
        if (container.spec.get("securityContext") or {}).get("readOnlyRootFilesystem") is not True:
            yield pod.title, f"container {container.name}: want readOnlyRootFilesystem: true"


@rule("no-host")
def no_host(cluster: Cluster) -> Findings:
    """Nothing of the node is shared: namespaces, folders, ports."""
    for pod in cluster.pods:
        for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
            if pod.spec.get(key):
                yield pod.title, f"sets {key}"
        for name, volume in pod.volumes.items():
            if "hostPath" in volume:
                yield pod.title, f"volume {name} is a folder of the node"
        for container in pod.containers:
            if any("hostPort" in port for port in container.spec.get("ports") or []):
                yield pod.title, f"container {container.name} takes a port of the node"


@rule("no-api-rights")
def no_api_rights(cluster: Cluster) -> Findings:
    """Nobody gets rights in, or a token of, the Kubernetes API."""
    for thing in cluster.kind("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        yield title(thing), "gives rights that nothing in Sluice needs"
    for thing in cluster.kind("ServiceAccount"):
        if thing.get("automountServiceAccountToken") is not False:
            yield title(thing), "want automountServiceAccountToken: false"
    for pod in cluster.pods:
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield pod.title, "want automountServiceAccountToken: false"


@rule("environment-plain")
def environment_plain(cluster: Cluster) -> Findings:
    """Variables are those that this release reads or that arguments refer to; none carries a secret but a store's keys."""
    for pod in cluster.pods:
        if pod.spec.get("enableServiceLinks") is not False:
            yield pod.title, "want enableServiceLinks: false, or every Service becomes variables"
        for container in pod.containers:
            if container.spec.get("envFrom"):
                yield pod.title, f"container {container.name}: envFrom brings variables that nobody named"
            names = [entry["name"] for entry in container.env]
            line = " ".join(map(str, container.spec.get("args") or []))
            for entry in container.env:
                secret = (entry.get("valueFrom") or {}).get("secretKeyRef")
                if entry["name"] in STORE_KEYS:
                    if pod.role != STORE_ROLE:
                        yield pod.title, f"container {container.name}: {entry['name']} is for ranks, which alone write there"
                    if secret != {"name": STORE_SECRET, "key": STORE_KEYS[entry["name"]]}:
                        yield pod.title, f"container {container.name}: {entry['name']}: want it from Secret {STORE_SECRET}"
                elif secret is not None:
                    yield pod.title, f"container {container.name}: {entry['name']} carries a secret: mount it as a file"
                elif entry["name"] not in ENVIRONMENT and f"$({entry['name']})" not in line:
                    yield pod.title, f"container {container.name}: nothing reads {entry['name']}"
            for name in re.findall(r"\$\((\w+)\)", line):
                if name not in names:
                    yield pod.title, f"container {container.name}: its arguments name $({name}), which is not set"


@rule("image-fixed")
def image_fixed(cluster: Cluster) -> Findings:
    """Images have a version or a digest, and name their registry; the base's own names are for overlays to replace."""
    for pod, container in cluster.containers():
        image = str(container.spec.get("image", ""))
        if not REGISTRY.match(image):
            yield pod.title, f"container {container.name}: image {image} names no registry"
        elif not (DIGEST.search(image) or TAG.search(image) or image.endswith(NO_DIGEST)):
            yield pod.title, f"container {container.name}: image {image} has neither a version nor a digest"
        if container.spec.get("imagePullPolicy") != "IfNotPresent":
            yield pod.title, f"container {container.name}: want imagePullPolicy: IfNotPresent, as images never change"


@rule("image-digest-in-production")
def image_digest_in_production(cluster: Cluster) -> Findings:
    """Where one image has a digest all have, or their place is kept for one; production is told by its priorities."""
    images = [(pod, str(container.spec.get("image", ""))) for pod, container in cluster.containers()]
    production = bool(cluster.kind("PriorityClass")) and any("@" in image for _, image in images)
    for pod, image in images:
        if production and not (DIGEST.search(image) or image.endswith(NO_DIGEST)):
            yield pod.title, f"image {image} has no digest"


@rule("image-version-label")
def image_version_label(cluster: Cluster) -> Findings:
    """A tag and the label of the version say the same."""
    for pod, container in cluster.containers():
        found = TAG.search(str(container.spec.get("image", "")))
        if found and found[1] != pod.labels.get("app.kubernetes.io/version"):
            yield pod.title, f"runs {found[1]} under the label {pod.labels.get('app.kubernetes.io/version')}"


@rule("resources-set")
def resources_set(cluster: Cluster) -> Findings:
    """Requests of CPU, memory and scratch; limits of memory and scratch; none of CPU, which would delay heartbeats."""
    for pod, container in cluster.containers():
        for kind, name in (("requests", "cpu"), ("requests", "memory"), ("requests", "ephemeral-storage"),
                           ("limits", "memory"), ("limits", "ephemeral-storage")):
            if container.resource(kind, name) is None:
                yield pod.title, f"container {container.name} lacks resources.{kind}.{name}"
        if container.resource("limits", "cpu") is not None:
            yield pod.title, f"container {container.name} has a limit on CPU"


@rule("resources-legal")
def resources_legal(cluster: Cluster) -> Findings:
    """Quantities are quantities, requests within limits, memory reserved whole, GPUs whole."""
    for pod, container in cluster.containers():
        resources = container.spec.get("resources") or {}
        for kind in ("requests", "limits"):
            for name, value in (resources.get(kind) or {}).items():
                number = quantity(value)
                if number is None or number <= 0:
                    yield pod.title, f"container {container.name}: {kind}.{name} is no quantity: {value!r}"
                elif "/" in name and number != int(number):
                    yield pod.title, f"container {container.name}: {kind}.{name} must be whole: {value}"
        for name in ("memory", "ephemeral-storage"):
            request, limit = (container.resource(kind, name) for kind in ("requests", "limits"))
            asked, most = quantity(request), quantity(limit)
            if asked is not None and most is not None and (asked > most or (name == "memory" and asked != most)):
                yield pod.title, f"container {container.name}: requests {request} of {name}, limit {limit}"
    for claim in cluster.kind("PersistentVolumeClaim"):
        value = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage")
        if not quantity(value):
            yield title(claim), f"storage is no quantity: {value!r}"


@rule("threads-fit")
def threads_fit(cluster: Cluster) -> Findings:
    """As many compute threads as CPUs are requested, one if fewer than one is."""
    for pod, container in cluster.containers():
        asked = quantity(container.resource("requests", "cpu"))
        threads = container.flags.get("threads")
        if asked is not None and threads is not None and threads.isdigit() and int(threads) > max(1, asked):
            yield pod.title, f"--threads={threads} on {container.resource('requests', 'cpu')} CPUs"


@rule("gpu-and-device")
def gpu_and_device(cluster: Cluster) -> Findings:
    """Who computes on cuda asks for a GPU, tolerates its taint and runs the image for it; nobody else does."""
    for pod, container in cluster.containers():
        cuda = container.flags.get("device", "cpu").startswith("cuda")
        has = container.resource("limits", GPU) is not None
        image = "/sluice-cuda" in str(container.spec.get("image", ""))
        tolerates = any(entry.get("key") == GPU for entry in pod.spec.get("tolerations") or [])
        if len({cuda, has, image, tolerates}) > 1:
            yield pod.title, f"--device on cuda: {cuda}, GPU limit: {has}, GPU image: {image}, toleration: {tolerates}"


@rule("mounts-and-volumes")
def mounts_and_volumes(cluster: Cluster) -> Findings:
    """Every mount has its volume, every volume a mount and one source, and each path is there once, where it can be made."""
    for pod in cluster.pods:
        used = set()
        for container in pod.containers:
            paths = [mount["mountPath"] for mount in container.mounts]
            for path in sorted({path for path in paths if paths.count(path) > 1}):
                yield pod.title, f"container {container.name} mounts {path} twice"
            for outer in container.mounts:
                if outer.get("readOnly"):
                    for path in paths:
                        if path.startswith(outer["mountPath"].rstrip("/") + "/"):
                            yield pod.title, f"nobody can make {path} inside {outer['mountPath']}, which is read-only"
            for mount in container.mounts:
                used.add(mount["name"])
                if mount["name"] not in pod.volumes:
                    yield pod.title, f"container {container.name} mounts {mount['name']}, which is no volume"
        for name in sorted(set(pod.volumes) - used):
            yield pod.title, f"nobody mounts volume {name}"
        for name, volume in pod.volumes.items():
            if len(volume) != 2 or not name:
                yield pod.title, f"volume {name} has {len(volume) - 1} sources"


@rule("scratch-bounded")
def scratch_bounded(cluster: Cluster) -> Findings:
    """Scratch space has a size, in memory at most half of the limit, on disk within the limit; /tmp is there."""
    for pod in cluster.pods:
        for container in pod.containers:
            sums = {"memory": 0.0, "ephemeral-storage": 0.0}
            for mount in container.mounts:
                scratch = (pod.volumes.get(mount["name"]) or {}).get("emptyDir")
                if scratch is None:
                    continue
                size = quantity(scratch.get("sizeLimit"))
                if size is None:
                    yield pod.title, f"volume {mount['name']} has no sizeLimit"
                    continue
                sums["memory" if scratch.get("medium") == "Memory" else "ephemeral-storage"] += size
            for name, most in (("memory", 0.5), ("ephemeral-storage", 1.0)):
                limit = quantity(container.resource("limits", name))
                if limit is not None and sums[name] > most * limit:
                    yield pod.title, f"container {container.name}: scratch may take more than {most:.0%} of its {name}"
            if container.mount_of("/tmp") is None:
                yield pod.title, f"container {container.name} cannot write to /tmp"


@rule("shared-memory")
def shared_memory(cluster: Cluster) -> Findings:
    """Ranks and actors have their own /dev/shm, in memory."""
    for pod, container in cluster.containers():
        mount = container.mount_of("/dev/shm")
        volume = pod.volumes.get(mount["name"]) if mount else None
        if pod.role in SHARED_MEMORY and ((volume or {}).get("emptyDir") or {}).get("medium") != "Memory":
            yield pod.title, f"container {container.name} lacks /dev/shm in memory"


def node_spread(constraint: Object) -> tuple[str, str]:
    return str(constraint.get("topologyKey")), str(constraint.get("whenUnsatisfiable"))


@rule("spread")
def spread(cluster: Cluster) -> Findings:
    """Actors and reward servers spread over nodes and zones by their own labels, and never wait for it."""
    for pod in cluster.pods:
        if pod.owner["kind"] != "Deployment":
            continue
        found = pod.spec.get("topologySpreadConstraints") or []
        want = {("kubernetes.io/hostname", "ScheduleAnyway"), ("topology.kubernetes.io/zone", "ScheduleAnyway")}
        if {node_spread(one) for one in found} != want:
            yield pod.title, f"want ScheduleAnyway over host and zone, got {sorted(map(node_spread, found))}"
        for one in found:
            if not matches((one.get("labelSelector") or {}).get("matchLabels") or {}, pod.labels):
                yield pod.title, f"spreads over {one.get('topologyKey')} by labels that it does not have"


@rule("affinity-own")
def affinity_own(cluster: Cluster) -> Findings:
    """Affinity to other pods is to one's own kind, and only a wish: a group must not wait for a perfect place."""
    for pod in cluster.pods:
        wishes = (pod.spec.get("affinity") or {}).get("podAffinity") or {}
        if "requiredDuringSchedulingIgnoredDuringExecution" in wishes:
            yield pod.title, "demands a place beside other pods"
        for wish in wishes.get("preferredDuringSchedulingIgnoredDuringExecution") or []:
            term = wish.get("podAffinityTerm") or {}
            if not matches((term.get("labelSelector") or {}).get("matchLabels") or {}, pod.labels):
                yield pod.title, f"wishes to be near others than its own kind ({term.get('topologyKey')})"


@rule("ranks-stay")
def ranks_stay(cluster: Cluster) -> Findings:
    """Autoscalers of nodes are asked not to move ranks, which lose work."""
    for pod in cluster.pods:
        notes = (pod.template.get("metadata") or {}).get("annotations") or {}
        if pod.role == "rank" and pod.selector is not None and (
                notes.get("cluster-autoscaler.kubernetes.io/safe-to-evict") != "false"
                or notes.get("karpenter.sh/do-not-disrupt") != "true"):
            yield pod.title, "want safe-to-evict \"false\" and do-not-disrupt \"true\""


@rule("container-names")
def container_names(cluster: Cluster) -> Findings:
    """Containers are called by their role, ports by what they serve, each number once."""
    for pod in cluster.pods:
        name = "node" if pod.component == "train-rank" else pod.role  # Trainer's name for it
        if [container.name for container in pod.containers] != [name]:
            yield pod.title, f"want one container named {name}, got {[one.name for one in pod.containers]}"
        for container in pod.containers:
            ports = container.spec.get("ports") or []
            numbers = [port["containerPort"] for port in ports]
            names = sorted(port.get("name", "") for port in ports)
            wanted = sorted(["grpc", "metrics", *(["health"] if "health-address" in container.flags else [])])
            if names != wanted or len(set(numbers)) != len(numbers):
                yield pod.title, f"want the ports {', '.join(wanted)}, got {container.ports}"
            if not all(1 <= number <= 65535 for number in numbers):
                yield pod.title, f"ports {numbers}: want 1 to 65535"


@rule("dashboards-found")
def dashboards_found(cluster: Cluster) -> Findings:
    """ConfigMaps stay far below the limit of an object, and those of dashboards carry the sidecar's label."""
    for thing in cluster.kind("ConfigMap"):
        size = sum(len(str(value).encode()) for value in (thing.get("data") or {}).values())
        if size > 900_000:
            yield title(thing), f"holds {size} bytes: a server takes 1 MiB"
        board = any(name.endswith(".json") for name in thing.get("data") or {})
        if board and labels(thing).get("grafana_dashboard") != "1":
            yield title(thing), "want the label grafana_dashboard: \"1\""
