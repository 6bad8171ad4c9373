"""Command lines: what the program of a container would say to its flags, and whether its peers are where it looks."""

from __future__ import annotations

from .facts import COMMANDS, DEVICE, EDGES, FOLDERS, LISTENING, NEEDED, PEERS, ROLES, RUN, Flag, programs
from .objects import JOB_SETS, Cluster, Container, Findings, Pod, job_set_spec, rule, title


def command_of(container: Container) -> tuple[str, str]:
    """(binary, subcommand)."""
    takes_command = container.binary == "sluice-learner"
    return container.binary, container.words[0] if takes_command and container.words else ""


def is_run(container: Container) -> bool:
    return command_of(container) == RUN


def flags_of(container: Container) -> dict[str, Flag]:
    binary, command = command_of(container)
    return {**programs().get((binary, ""), {}), **programs().get((binary, command), {})}


def port_in(address: str) -> int | None:
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else None


@rule("command-of-role")
def command_of_role(cluster: Cluster) -> Findings:
    """Every component is a role of ours, and runs that role's program."""
    for pod, container in cluster.containers():
        if pod.role not in ROLES:
            yield pod.title, f"'{pod.component}' is no component of Sluice"
            continue
        wanted = RUN if pod.job is not None and pod.role == "rank" else COMMANDS[pod.role]
        if command_of(container) != wanted:
            yield pod.title, f"runs {' '.join(command_of(container))}, want {' '.join(wanted)}"


@rule("flags-known")
def flags_known(cluster: Cluster) -> Findings:
    """The program takes every flag and value, each once."""
    for pod, container in cluster.containers():
        known = flags_of(container)
        for name, value in container.flags.items():
            if name not in known:
                yield pod.title, f"{' '.join(command_of(container))} has no --{name}"
            elif "$(" not in value and known[name].refuses(value):
                yield pod.title, f"--{name} {known[name].refuses(value)}"
        for name in container.repeated:
            yield pod.title, f"--{name} is there twice"
        extra = container.words[2 if is_run(container) else 1 if container.binary == "sluice-learner" else 0:]
        if extra:
            yield pod.title, f"nobody takes the words {extra}"
        if is_run(container) and len(container.words) < 2:
            yield pod.title, "sluice-learner run wants a spec"


@rule("flags-needed")
def flags_needed(cluster: Cluster) -> Findings:
    """What a container must say is said: required flags, and those whose default is meant for one machine."""
    for pod, container in cluster.containers():
        needed = {name for name, flag in flags_of(container).items() if flag.required}
        needed |= set(NEEDED.get("run" if is_run(container) else pod.role, ()))
        missing = sorted(needed - set(container.flags))
        if missing:
            yield pod.title, f"lacks {', '.join('--' + name for name in missing)}"
        if pod.role == "actor" and ("coordinator" in container.flags) == ("learner" in container.flags):
            yield pod.title, "wants one of --coordinator and --learner"


@rule("log-json")
def log_json(cluster: Cluster) -> Findings:
    """Logs are one JSON object a line, for whoever collects them."""
    for pod, container in cluster.containers():
        args = list(map(str, container.spec.get("args") or []))
        # A flag of sluice-learner itself stands before the subcommand.
        if container.flags.get("log-format") != "json" or (args and args[0] != "--log-format=json"):
            yield pod.title, "want --log-format=json as the first argument"


@rule("device-legal")
def device_legal(cluster: Cluster) -> Findings:
    """--device and --precision are values that the help text names."""
    for pod, container in cluster.containers():
        if not DEVICE.fullmatch(container.flags.get("device", "cpu")):
            yield pod.title, f"--device={container.flags['device']}: want cpu or cuda:N"
        if container.flags.get("precision", "fp32") not in ("fp32", "bf16"):
            yield pod.title, f"--precision={container.flags['precision']}: want fp32 or bf16"


@rule("listens-outside")
def listens_outside(cluster: Cluster) -> Findings:
    """Programs listen where the pod can be reached, at the ports that it declares."""
    for pod, container in cluster.containers():
        for flag, name in LISTENING.items():
            address = container.flags.get(flag)
            if address is None:
                continue
            host = address.rpartition(":")[0]
            if host not in ("0.0.0.0", "$(POD_IP)"):
                yield pod.title, f"--{flag}={address}: nobody outside the pod can reach that"
            if port_in(address) != container.ports.get(name):
                yield pod.title, f"--{flag}={address}, but the port {name} is {container.ports.get(name)}"


@rule("rank-reachable")
def rank_reachable(cluster: Cluster) -> Findings:
    """A rank tells the coordinator and the other ranks the address that it listens at, so it is the pod's own."""
    for pod, container in cluster.containers():
        if pod.component != "rank":
            continue
        if not container.flags.get("address", "").startswith("$(POD_IP):"):
            yield pod.title, "--address is what actors are told: want $(POD_IP):PORT"
        if container.flags.get("collective-host") != "$(POD_IP)":
            yield pod.title, "--collective-host is what other ranks are told: want $(POD_IP)"
        found = [entry for entry in container.env if entry["name"] == "POD_IP"]
        if [(entry.get("valueFrom") or {}).get("fieldRef", {}).get("fieldPath") for entry in found] != ["status.podIP"]:
            yield pod.title, "POD_IP is not the pod's address"


def serves(cluster: Cluster, address: str, role: str, asking: Pod) -> str:
    """Why nobody of that role answers at the address; empty if somebody does."""
    host, port = address.rpartition(":")[0], port_in(address)
    service = cluster.named("Service", host)
    if service is not None:
        if service["spec"].get("clusterIP") == "None":
            return f"{host} is headless: an actor would stay with one of its pods"
        behind = cluster.selected(service["spec"].get("selector") or {})
        if not any(pod.role == role and (asking.component, pod.component, str(port)) in EDGES for pod in behind):
            return f"behind {host} are no pods of role {role}"
        return "" if port in [one["port"] for one in service["spec"]["ports"]] else f"{host} has no port {port}"
    if asking.owner["kind"] in JOB_SETS:  # JOBSET-JOB-0-0.SUBDOMAIN
        jobset = asking.owner["metadata"]["name"] if asking.owner["kind"] == "JobSet" else "$(TRAINJOB)"
        subdomain = (job_set_spec(asking.owner).get("network") or {}).get("subdomain", jobset)
        for pod in cluster.pods:
            if pod.owner is asking.owner and host == f"{jobset}-{pod.title.rpartition('/')[2]}-0-0.{subdomain}":
                if pod.role != role:
                    return f"{host} is of role {pod.role}"
                if asking.owner["kind"] == "JobSet" and (pod.job or {}).get("completions", 1) > 1:
                    return f"{host} is the first of pods that take turns: want a Service"
                return "" if port == pod.containers[0].ports.get("grpc") else f"{host} has no port {port}"
    return f"there is no {host}"


@rule("peers-there")
def peers_there(cluster: Cluster) -> Findings:
    """The peers that flags name are there, of the right role, at that port."""
    for pod, container in cluster.containers():
        for flag, role in PEERS.items():
            if flag in container.flags:
                reason = serves(cluster, container.flags[flag], role, pod)
                if reason:
                    yield pod.title, f"--{flag}={container.flags[flag]}: {reason}"


@rule("ranks-counted")
def ranks_counted(cluster: Cluster) -> Findings:
    """The coordinator waits for as many ranks as there are, and is alone."""
    replicas = {pod.component: pod.replicas for pod in cluster.pods}
    for pod, container in cluster.containers():
        if pod.component != "coordinator":
            continue
        if container.flags.get("ranks") != str(replicas.get("rank")):
            yield pod.title, f"--ranks={container.flags.get('ranks')}, but there are {replicas.get('rank')} ranks"
        if pod.replicas != 1:
            yield pod.title, f"has {pod.replicas} replicas: there is one coordinator"


@rule("folders-mounted")
def folders_mounted(cluster: Cluster) -> Findings:
    """Folders that flags name lie in claims, writable where the program writes, read-only where it only reads."""
    for pod, container in cluster.containers():
        for flag, writes in FOLDERS.items():
            path = container.flags.get(flag)
            if path is None:
                continue
            mount = container.mount_of(path)
            if mount is None or "persistentVolumeClaim" not in (pod.volumes.get(mount["name"]) or {}):
                yield pod.title, f"--{flag}={path} lies in no claim: gone with the pod, or not to be written"
            elif writes and mount.get("readOnly"):
                yield pod.title, f"--{flag}={path} is mounted read-only"
        if container.binary == "sluice-reward" and any(
                "persistentVolumeClaim" in (pod.volumes.get(mount["name"]) or {}) and not mount.get("readOnly")
                for mount in container.mounts):
            yield pod.title, "may write to a claim that it only reads"


@rule("runs-shared")
def runs_shared(cluster: Cluster) -> Findings:
    """Ranks see the coordinator's --runs under the same path of the same claim; its job store is a claim of its own."""
    claims = {}
    for pod, container in cluster.containers():
        if pod.component == "coordinator":
            for flag in ("runs", "state"):
                claims[flag] = located(pod, container, container.flags.get(flag, ""))
            claim = cluster.named("PersistentVolumeClaim", (claims["state"] or ("", ""))[0])
            if claim is not None and claim["spec"].get("accessModes") != ["ReadWriteOncePod"]:
                yield title(claim), "SQLite lies here: want ReadWriteOncePod"
            if claims["runs"] and claims["state"] and claims["runs"][0] == claims["state"][0]:
                yield pod.title, "--state and --runs are in one claim"
            runs = container.flags.get("runs", "")
    for pod, container in cluster.containers():
        if pod.component == "rank" and claims and located(pod, container, runs) != claims["runs"]:
            yield pod.title, f"does not see {runs} where the coordinator does"


def located(pod: Pod, container: Container, path: str) -> tuple[str, str] | None:
    """(claim, path within it) of a folder; None if it is in none."""
    mount = container.mount_of(path)
    source = (pod.volumes.get(mount["name"]) or {}).get("persistentVolumeClaim") if mount else None
    if not mount or not source:
        return None
    return source["claimName"], mount.get("subPath", "") + path.removeprefix(mount["mountPath"])
