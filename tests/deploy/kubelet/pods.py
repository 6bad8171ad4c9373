"""A pod and its containers on this node: started, probed, restarted and ended as a kubelet does it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import image, probes, volumes
from .cgroups import Memory
from .container import DEFAULT_CAPABILITIES, KNOWN_CAPABILITIES
from .manifests import Object, PodSpec, Unsupported, quantity
from .volumes import ConfigError

if TYPE_CHECKING:
    from .cluster import Cluster

RUNTIME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "container.py")
# Fields that are about placing pods: a cluster of one node has nothing to do for them.
PLACING = {"affinity", "nodeSelector", "tolerations", "topologySpreadConstraints", "priorityClassName",
           "serviceAccountName", "schedulerName"}
POD_FIELDS = PLACING | {"automountServiceAccountToken", "containers", "initContainers", "volumes", "securityContext",
                        "enableServiceLinks", "terminationGracePeriodSeconds", "restartPolicy", "hostname", "subdomain"}
CONTAINER_FIELDS = {"name", "image", "imagePullPolicy", "command", "args", "env", "envFrom", "ports", "livenessProbe",
                    "readinessProbe", "startupProbe", "resources", "securityContext", "volumeMounts", "workingDir",
                    "lifecycle"}
BACK_OFF_S, MOST_BACK_OFF_S = 10, 300
POLL_S = 0.05


@dataclass
class Exit:
    code: int
    why: str  # who ended it: "itself", "killed by this run", "liveness", ...
    drained_s: float | None = None


class Container:
    """One declared container, over all its starts."""

    def __init__(self, pod: Pod, spec: Object, init: bool = False):
        if unknown := set(spec) - CONTAINER_FIELDS:
            raise Unsupported(f"{pod.name}: container fields {sorted(unknown)}")
        if not spec.get("command"):
            raise Unsupported(f"{pod.name}: no command; the emulated image has no entry point")
        if set(spec.get("lifecycle") or {}) - {"preStop"}:
            raise Unsupported(f"{pod.name}: lifecycle {spec['lifecycle']}")
        self.pod, self.spec, self.init = pod, spec, init
        self.name: str = spec["name"]
        self.title = f"{pod.name}/{self.name}"
        self.ports = {port.get("name", ""): port["containerPort"] for port in spec.get("ports") or []}
        self.exits: list[Exit] = []
        self.starts = 0
        self.began = 0.0  # the latest start, time.monotonic()
        self.started = self.ready = False  # by the startup probe, and by readiness
        self.pid = 0
        self.ended = threading.Event()  # the present start is over
        self.ended.set()
        self.lock = threading.Lock()  # held while a start is under way
        self.why = "itself"
        limit = ((spec.get("resources") or {}).get("limits") or {}).get("memory")
        self.memory = Memory(f"{pod.uid}-{self.name}", quantity(limit) if limit else None)
        self.probes = {} if init else {
            role: probe for role in ("startup", "liveness", "readiness")
            if (probe := probes.declared(spec, role, pod.cluster.pace))}

    @property
    def log(self) -> str:
        return os.path.join(self.pod.folder, f"{self.name}.{self.starts}.log")

    def said(self, start: int | None = None) -> str:
        path = os.path.join(self.pod.folder, f"{self.name}.{start or self.starts}.log")
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def last_words(self) -> str:
        lines = [line for line in self.said().splitlines() if line.strip()]
        return lines[-1][-300:] if lines else "(said nothing)"

    # ----------------------------------------------------------------------------------------------------- running

    def environment(self) -> dict[str, str]:
        pod = self.pod
        found = {"PATH": image.PATH, "HOSTNAME": pod.hostname, "HOME": "/", "KUBERNETES_SERVICE_HOST": "10.96.0.1",
                 "KUBERNETES_SERVICE_PORT": "443"}
        for source in self.spec.get("envFrom") or []:
            kind, = set(source) - {"prefix"}
            thing = pod.find("ConfigMap" if kind == "configMapRef" else "Secret", source[kind]["name"])
            if thing is None and not source[kind].get("optional"):
                raise ConfigError(f"envFrom: there is no {source[kind]['name']}")
            found.update({source.get("prefix", "") + key: value.decode()
                          for key, value in volumes.contents(thing or {}).items()})
        for entry in self.spec.get("env") or []:
            value = self.value_from(entry) if "valueFrom" in entry else expand(str(entry.get("value", "")), found)
            if value is not None:
                found[entry["name"]] = value
        return found

    def value_from(self, entry: Object) -> str | None:
        kind, = entry["valueFrom"]
        source = entry["valueFrom"][kind]
        if kind == "fieldRef":
            return self.pod.field(source["fieldPath"])
        if kind == "resourceFieldRef":
            where, _, what = source["resource"].partition(".")
            return str(quantity(self.spec["resources"][where][what]))
        if kind in ("configMapKeyRef", "secretKeyRef"):
            thing = self.pod.find("ConfigMap" if kind == "configMapKeyRef" else "Secret", source["name"])
            data = volumes.contents(thing) if thing else {}
            if source["key"] in data:
                return data[source["key"]].decode()
            if source.get("optional"):
                return None
            raise ConfigError(f"{entry['name']}: there is no key {source['key']} in {source['name']}")
        raise Unsupported(f"valueFrom {kind}")

    def config(self, argv: list[str] | None = None) -> Object:
        """What container.py reads. ConfigError for what a kubelet refuses."""
        pod, context = self.pod, self.spec.get("securityContext") or {}
        whole = {**{key: value for key, value in pod.security.items() if key.startswith("runAs") or key == "seccompProfile"},
                 **context}
        uid = whole.get("runAsUser", 0)  # the image's user is not known here
        if whole.get("runAsNonRoot") and uid == 0:
            raise ConfigError("runAsNonRoot, and the user is root")
        capabilities = set(DEFAULT_CAPABILITIES)
        asked = context.get("capabilities") or {}
        for name in asked.get("drop") or []:
            capabilities = set() if name == "ALL" else capabilities - {name}
        capabilities |= set(asked.get("add") or [])
        groups = set(pod.security.get("supplementalGroups") or [])
        if "fsGroup" in pod.security:
            groups.add(pod.security["fsGroup"])
        environment = self.environment()
        words = argv or [str(word) for word in self.spec["command"] + (self.spec.get("args") or [])]
        expanded = [expand(word, environment) for word in words]
        for word in expanded:
            if re.search(r"\$\(\w+\)", word):
                pod.cluster.find("env-unresolved", self.title, f"{word} names a variable that is not there")
        mounts = [{"source": os.path.join(pod.place, name), "path": f"/etc/{name}", "read_only": False}
                  for name in ("hosts", "hostname", "resolv.conf")]
        for entry in self.spec.get("volumeMounts") or []:
            if set(entry) - {"name", "mountPath", "readOnly"}:
                raise Unsupported(f"{self.title}: volumeMount {entry}")
            if entry["name"] not in pod.volumes:
                raise ConfigError(f"there is no volume {entry['name']}")
            mounts.append({"source": pod.volumes[entry["name"]], "path": entry["mountPath"],
                           "read_only": bool(entry.get("readOnly"))})
        root = os.path.join(pod.place, f"root-{self.name}")
        os.makedirs(root, exist_ok=True)
        return {**pod.cluster.image, "root": root, "mounts": mounts, "env": environment, "argv": expanded,
                "read_only_root": bool(context.get("readOnlyRootFilesystem")), "hostname": pod.hostname,
                "working_dir": self.spec.get("workingDir", "/"), "uid": uid, "gid": whole.get("runAsGroup", 0),
                "groups": sorted(groups), "capabilities": [KNOWN_CAPABILITIES[name] for name in sorted(capabilities)],
                "no_new_privileges": context.get("allowPrivilegeEscalation") is False,
                "seccomp": (whole.get("seccompProfile") or {}).get("type") == "RuntimeDefault",
                "network": pod.port.namespace, "cgroups": [self.memory.path] if self.memory.path else [],
                "home_cgroups": [self.memory.home] if self.memory.path else []}

    def start(self, argv: list[str] | None = None) -> None:
        """Not once the pod was deleted: end() has looked at this container by then, or will."""
        config = self.config(argv)
        with self.lock:
            if not self.pod.deleted.is_set():
                self.start_as(config)

    def start_as(self, config: Object) -> None:
        self.starts += 1
        self.began = time.monotonic()
        self.started, self.why, self.pid = False, "itself", 0
        self.ended = threading.Event()
        self.kills_before = self.memory.kills()
        path = os.path.join(self.pod.place, f"{self.name}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        reading, writing = os.pipe()
        with open(self.log, "wb") as log:
            runtime = subprocess.Popen([sys.executable, "-S", "-E", "-B", RUNTIME, path, str(writing)], pass_fds=[writing],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        os.close(writing)
        status = os.fdopen(reading, "r", encoding="utf-8")
        first = status.readline()
        self.pid = json.loads(first)["pid"] if first else 0
        threading.Thread(target=self.wait_for_end, args=(runtime, status, self.ended), daemon=True).start()

    def wait_for_end(self, runtime: subprocess.Popen[bytes], status: Any, ended: threading.Event) -> None:
        last = status.readline()
        status.close()
        runtime.wait()
        code = json.loads(last)["code"] if last else 128
        why = self.why
        if code == 137 and self.memory.kills() > self.kills_before:
            why = "memory"
        self.ready = False
        self.exits.append(Exit(code, why))
        ended.set()

    def send(self, number: int) -> None:
        with self.lock:
            if self.pid and not self.ended.is_set():
                try:
                    os.kill(self.pid, number)
                except ProcessLookupError:
                    pass

    def execute(self, command: list[str], timeout: float) -> tuple[int, str]:
        path = os.path.join(self.pod.place, f"{self.name}.json")
        answer = subprocess.run([sys.executable, "-S", "-E", "-B", RUNTIME, path, "-", str(self.pid), str(timeout), *command],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                errors="replace")
        if answer.returncode == 124:
            return 124, f"no end within {timeout} s"
        return answer.returncode, answer.stdout

    # ------------------------------------------------------------------------------------------------------ a life

    def live(self) -> None:
        """Until the pod is deleted: starts, watches, and starts again as the policy says."""
        back_off = BACK_OFF_S
        while not self.pod.deleted.is_set():
            try:
                self.start()
            except ConfigError as error:
                self.pod.cluster.find("config-error", self.title, str(error))
                return
            self.watch()
            self.pod.cluster.sync()
            if self.pod.deleted.is_set():
                return  # also without a start
            self.pod.cluster.ended(self, self.exits[-1])
            if not self.restarts(self.exits[-1].code):
                return
            self.pod.deleted.wait(back_off * self.pod.cluster.pace)
            back_off = min(2 * back_off, MOST_BACK_OFF_S)

    def restarts(self, code: int) -> bool:
        policy = self.pod.spec.get("restartPolicy", "Always")
        if self.init and policy == "Always":
            policy = "OnFailure"
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    def watch(self) -> None:
        """Probes this start until it is over."""
        now = time.monotonic()
        for probe in self.probes.values():
            probe.restart(now)
        self.started = "startup" not in self.probes
        if self.started and "readiness" not in self.probes:
            self.set_ready(True)
        while not self.ended.is_set():
            waiting = [probe for role, probe in self.probes.items()
                       if (role == "startup") != self.started and not self.pod.deleted.is_set()]
            due = min((probe.due for probe in waiting), default=time.monotonic() + 1)
            if self.ended.wait(max(0, min(due - time.monotonic(), 1))):
                break
            for probe in waiting:
                if probe.due <= time.monotonic() and not self.ended.is_set() and not self.pod.deleted.is_set():
                    self.try_probe(probe)

    def try_probe(self, probe: probes.Probe) -> None:
        why = probes.ask(probe.handler, probe.kind, self.pod.port.address, self.ports, probe.timeout_s, self.execute)
        probe.take(why, time.monotonic())
        if probe.role == "startup" and probe.succeeded:
            self.started = True
            for other in self.probes.values():
                other.due = max(other.due, 0)
            if "readiness" not in self.probes:
                self.set_ready(True)
        elif probe.role == "readiness":
            if probe.succeeded:
                self.set_ready(True)
            elif probe.failed:
                self.set_ready(False)
        elif probe.failed:
            listens = ", ".join(map(str, sorted(self.pod.listening()))) or "nothing"
            self.pod.cluster.find("probe-failed", self.title, f"{probe}: {probe.why}; the pod listens at {listens}")
            self.end(probe.role, self.pod.grace_s)

    def set_ready(self, ready: bool) -> None:
        if self.ready != ready:
            self.ready = ready
            self.pod.cluster.sync()

    def end(self, why: str, grace_s: float) -> Exit | None:
        """preStop, TERM, and KILL when the grace is over, which preStop is part of."""
        with self.lock:
            if self.ended.is_set():
                return None
            began, self.why = time.monotonic(), why
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook:
            kind, = hook
            failed = probes.ask(hook[kind], kind, self.pod.port.address, self.ports, grace_s, self.execute)
            if failed:
                self.pod.cluster.find("hook-failed", self.title, f"preStop: {failed}")
        self.send(signal.SIGTERM)
        if not self.ended.wait(max(0, grace_s - (time.monotonic() - began))):
            self.pod.cluster.find("drain-overrun", self.title, f"did not end within its grace of {grace_s} s")
            self.send(signal.SIGKILL)
            self.ended.wait()
        self.exits[-1].drained_s = time.monotonic() - began
        return self.exits[-1]


def expand(text: str, environment: dict[str, str]) -> str:
    """$(NAME) as the API has it: an unknown one stays, $$ is a dollar."""
    return re.sub(r"\$\$|\$\((\w+)\)",
                  lambda found: "$" if found[0] == "$$" else environment.get(found[1], found[0]), text)


class Pod:
    def __init__(self, cluster: Cluster, spec: PodSpec):
        if unknown := set(spec.spec) - POD_FIELDS:
            raise Unsupported(f"{spec.name}: pod fields {sorted(unknown)}")
        self.cluster, self.made_of, self.spec = cluster, spec, spec.spec
        self.name, self.namespace, self.labels = spec.name, spec.namespace, spec.labels
        self.uid = f"{spec.namespace}-{spec.name}-{cluster.next_number()}"
        self.security: Object = spec.spec.get("securityContext") or {}
        self.hostname: str = spec.spec.get("hostname", spec.name)
        self.grace_s: float = spec.spec.get("terminationGracePeriodSeconds", 30)
        self.deleted = threading.Event()
        self.initialized = False
        self.on_demand = False  # containers run only by run()
        self.removed = threading.Event()  # it has ended, and so has its place on the network
        self.port = cluster.network.attach(self.uid)
        self.folder = os.path.join(cluster.folder, "logs", self.uid)
        self.place = os.path.join("/run/kubelet", self.uid)
        for folder in (self.folder, self.place):
            os.makedirs(folder)
        self.volumes: dict[str, str] = {}
        self.threads: list[threading.Thread] = []
        self.init = [Container(self, entry, init=True) for entry in spec.spec.get("initContainers") or []]
        self.containers = [Container(self, entry) for entry in spec.spec.get("containers") or []]
        self.write_files()

    def write_files(self) -> None:
        search = f"{self.namespace}.svc.cluster.local svc.cluster.local cluster.local"
        for name, text in (("hosts", f"127.0.0.1 localhost\n{self.port.address} {self.hostname}\n"),
                           ("hostname", self.hostname + "\n"),
                           ("resolv.conf", f"search {search}\nnameserver 10.96.0.10\noptions ndots:5\n")):
            with open(os.path.join(self.place, name), "w", encoding="utf-8") as file:
                file.write(text)

    def find(self, kind: str, name: str) -> Object | None:
        """An object of the pod's namespace."""
        for thing in self.cluster.things:
            if (thing["kind"], thing["metadata"]["name"], thing["metadata"].get("namespace", "default")) == (
                    kind, name, self.namespace):
                return thing
        return None

    def field(self, path: str) -> str:
        """A value of the downward API."""
        found = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
        if found:
            return {"labels": self.labels, "annotations": self.made_of.annotations}[found[1]].get(found[2], "")
        known = {"metadata.name": self.name, "metadata.namespace": self.namespace, "metadata.uid": self.uid,
                 "status.podIP": self.port.address, "status.hostIP": "10.244.0.1", "spec.nodeName": "node",
                 "spec.serviceAccountName": self.spec.get("serviceAccountName", "default")}
        if path not in known:
            raise Unsupported(f"fieldPath {path}")
        return known[path]

    def make_volumes(self) -> None:
        group = self.security.get("fsGroup")
        lazy = self.security.get("fsGroupChangePolicy") == "OnRootMismatch"
        for volume in self.spec.get("volumes") or []:
            path = os.path.join(self.place, "volume-" + volume["name"])
            volumes.make(volume, path, group, lazy, self.find, self.cluster.claims(self.namespace))
            self.volumes[volume["name"]] = os.path.realpath(path)

    def start(self) -> None:
        thread = threading.Thread(target=self.live, daemon=True)
        thread.start()
        self.threads.append(thread)

    def live(self) -> None:
        """Volumes, init containers one after another, then all containers."""
        try:
            self.make_volumes()
        except ConfigError as error:
            self.cluster.find("config-error", self.name, str(error))
            return
        for container in self.init:
            container.live()
            if self.deleted.is_set() or not container.exits or container.exits[-1].code != 0:
                return
        self.initialized = True
        for container in [] if self.on_demand else self.containers:
            thread = threading.Thread(target=container.live, daemon=True)
            thread.start()
            self.threads.append(thread)

    @property
    def gone(self) -> bool:
        return self.removed.is_set()

    @property
    def finished(self) -> bool:
        """Every container has ended, and none is started again."""
        return self.initialized and all(
            container.exits and container.ended.is_set() and not container.restarts(container.exits[-1].code)
            for container in self.containers)

    @property
    def ready(self) -> bool:
        return (self.initialized and not self.deleted.is_set() and bool(self.containers)
                and all(container.ready for container in self.containers))

    def listening(self) -> set[int]:
        """TCP ports that something in the pod listens at."""
        found = set()
        for container in self.containers:
            for name in ("tcp", "tcp6"):
                try:
                    with open(f"/proc/{container.pid}/net/{name}", encoding="ascii") as file:
                        rows = [line.split() for line in file.readlines()[1:]]
                except OSError:
                    continue
                found |= {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A"}
        return found

    def run(self, argv: list[str], index: int = 0) -> tuple[int, str]:
        """Runs a command in place of a container's own, to its end: (exit code, what it said)."""
        container = self.containers[index]
        container.start(argv)
        container.ended.wait()
        return container.exits[-1].code, container.said()

    def delete(self, why: str = "drained") -> dict[str, Exit]:
        """Ends the pod as a drain does; returns how its containers ended."""
        self.deleted.set()
        self.cluster.sync()
        ends: dict[str, Exit] = {}

        def end(container: Container) -> None:
            found = container.end(why, self.grace_s)
            if found:
                ends[container.name] = found
        threads = [threading.Thread(target=end, args=(container,)) for container in self.containers + self.init]
        for thread in threads:
            thread.start()
        for thread in threads + self.threads:
            thread.join()
        self.removed.set()
        self.cluster.forget(self)
        return ends
