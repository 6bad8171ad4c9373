#!/usr/bin/env python3
"""The mini-kubelet: runs rendered manifests on this machine, pod by pod, in namespaces, and holds them to what they say.

    mini_kubelet.py overlay FILE [--full|--job|--train-job] [--component NAME ...] [--replicas OWNER=N ...] [--flag OWNER FLAG=VALUE ...]
    mini_kubelet.py plant NAME      one bug of kubelet/plants.py
    mini_kubelet.py parts           fields that the overlays of today do not use
    mini_kubelet.py proof           all of it; writes docs/proof/kubelet.md (./sluice proof kubelet)

It needs root, iproute2 and nftables. Exit code: 0 no finding (a plant: found as it must be), 1 findings, 77 not possible
here. Binaries: $SLUICE_BIN_DIR, by default build/bin.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(TOP, "deploy", "kubernetes")]
import render  # noqa: E402  # the folders of these are known now
from kubelet import edges, job_scenario, jobs, manifests, plants, sandbox, scenario, secrets_written  # noqa: E402  # their folder is known from here on
from kubelet.cluster import Cluster, target_port  # noqa: E402
from kubelet.probes import harness  # noqa: E402

RENDERED = os.path.join(TOP, "deploy", "kubernetes", "rendered")
PAGE = os.path.join(TOP, "docs", "proof", "kubelet.md")
PACE = 0.1  # of probes and back-offs
LIMIT_S = 120
wait_until = harness.wait_until


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def new_cluster(things: list[manifests.Object]) -> Cluster:
    return Cluster(things, sandbox.inside(), harness.BIN, PACE)


def write_secrets(things: list[manifests.Object]) -> None:
    secrets_written.write(things, os.path.join(sandbox.inside(), "certificates"), harness.BIN)


def things_of(file: str, components: Sequence[str]) -> list[manifests.Object]:
    """The objects of a rendered overlay, with components that it has not; Secrets too."""
    things = manifests.load(read(file))
    if components:
        with render.Copy() as copy:
            things = manifests.load(copy.combination(os.path.splitext(os.path.basename(file))[0], components))
    write_secrets(things)
    return things


def overlay(arguments: argparse.Namespace) -> int:
    things = things_of(arguments.file, arguments.component)
    for text in arguments.replicas:
        owner, _, count = text.partition("=")
        manifests.set_replicas(things, owner, int(count))
    for owner, text in arguments.flag:
        flag, _, value = text.partition("=")
        manifests.set_flag(things, owner, flag, value)
    if arguments.train_job:
        things.append(jobs.job_set_of(manifests.find(things, job_scenario.RUNTIME), job_scenario.TRAIN_JOB))
    cluster = new_cluster(things)
    if arguments.job or arguments.train_job:
        kind = job_scenario.JobScenario if arguments.job else job_scenario.TrainScenario
        print("\n".join(job_scenario.summary(cluster, kind(cluster, say).run())))
    else:
        print("\n".join(scenario.summary(cluster, scenario.Scenario(cluster, arguments.full, say).run())))
    if cluster.findings:
        show_logs(cluster)
    cluster.kill_everything()
    return 1 if cluster.findings else 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show_logs(cluster: Cluster) -> None:
    for pod in cluster.pods + cluster.gone:
        for container in pod.containers:
            for start in range(1, container.starts + 1):
                lines = container.said(start).splitlines()[-12:]
                print(f"--- {container.title}, start {start}", *lines, sep="\n", file=sys.stderr)


# --------------------------------------------------------------------------------------------------------------- plants

def plant(arguments: argparse.Namespace) -> int:
    """0 if the bug was found by the name that it must have."""
    bug = plants.BY_NAME[arguments.name]
    if bug.part:
        return plant_in_job(bug)
    things = manifests.load(read(os.path.join(RENDERED, "dev-cpu.yaml")))
    write_secrets(things)
    bug.edit(things)
    cluster = new_cluster(things)
    cluster.start(*bug.owners)

    def found() -> bool:
        cluster.find_refused()
        return bug.is_named(cluster.findings)

    checked: list[bool] = []

    def look() -> bool:
        """Once all is ready, also what is asked of a cluster that is."""
        if found():
            return True
        if not checked and all(pod.ready for owner in bug.owners for pod in cluster.of(owner)):
            checked.append(True)
            check_ready(cluster)
        return found()
    try:
        wait_until(look, f"the bug is found: {bug.says}", LIMIT_S)
    except AssertionError as error:
        print(error)
        show_logs(cluster)
    print(*cluster.findings, sep="\n")
    result = 0 if found() else 1
    cluster.kill_everything()
    return result


def plant_in_job(bug: plants.Plant) -> int:
    things = things_of(os.path.join(RENDERED, "dev-cpu.yaml"), ["jobset"])
    manifests.set_replicas(things, f"{job_scenario.JOB_SET}/{job_scenario.ACTOR}", plants.JOB_ACTORS)
    bug.edit(things)
    cluster = new_cluster(things)
    run = job_scenario.JobScenario(cluster, say)
    run.run(getattr(run, bug.part))
    print(*cluster.findings, sep="\n")
    cluster.kill_everything()
    return 0 if bug.is_named(cluster.findings) else 1


def check_ready(cluster: Cluster) -> None:
    """What must hold once pods are ready."""
    for key, service in cluster.services.items():
        wanted = [pod for pod in cluster.pods if pod.ready and pod.made_of.owner.endswith("/" + key[1])]
        for port in service["spec"]["ports"]:
            reached = [pod for pod in cluster.endpoints(service)
                       if target_port(pod, port.get("targetPort", port["port"])) in pod.listening()]
            if wanted and not reached:
                cluster.find("service-empty", "/".join(key), f"port {port['port']} leads to no ready pod")
    scenario.look_at_ports(cluster)
    edges.probe_forbidden(cluster)


# ---------------------------------------------------------------------------------------------------------------- parts

def parts(_: argparse.Namespace) -> int:
    things = manifests.load(read(os.path.join(os.path.dirname(os.path.abspath(__file__)), "kubelet", "parts.yaml")))
    cluster = new_cluster(things)
    cluster.start()
    pod = cluster.of("Deployment/parts")[0]
    server = pod.containers[0]
    failed = []

    def expect(got: object, wanted: object, what: str) -> None:
        if got != wanted:
            failed.append(f"{what}: want {wanted!r}, got {got!r}")

    def sh(command: str) -> str:
        return server.execute(["sh", "-c", command], LIMIT_S)[1].strip()
    try:
        wait_until(lambda: pod.ready, "the pod is ready", LIMIT_S)
        expect(sh("cat /scratch/order"), "1\n2", "init containers in their order")
        expect(sh("cat /words/greeting /token/key"), "hellosecret", "config map and secret as files")
        expect(sh("echo $BOTH"), "hello of-the-pod $(WORD)", "values of the environment")
        expect(sh("id -u; id -g; id -G"), "10001\n10001\n10001", "user and groups")
        expect(sh("grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/1/status | tr -s '\\t\\n' ' '").strip(),
               "CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2", "privileges")
        expect(sh("touch /x /usr/x /srv/x /token/x 2>&1 | grep -c Read-only"), "4", "places that cannot be written")
        expect(sh("head -c 2000000 /dev/zero > /scratch/big; stat -c %s /scratch/big; rm /scratch/big").splitlines()[-1], "1044480",
               "an emptyDir ends at its size limit")
        expect(sh("unshare --user true; echo $?").splitlines()[-1], "1", "a call that RuntimeDefault refuses")
        expect(sh("python3 -c \"import socket, urllib.request; print(urllib.request.urlopen('http://web/order').status, "
                  "socket.gethostname())\""), "200 parts-0", "a Service by its short name")
        expect(len(sh("ls /proc | grep -cE '^[0-9]+$'")) < 2, True, "processes that are seen")
        sh("touch /scratch/sick")
        wait_until(lambda: server.starts == 2, "the sick container was started again", LIMIT_S)
        expect([(one.name, one.where) for one in cluster.findings], [("probe-failed", "parts-0/server")], "findings")
        expect(server.exits[0].why, "liveness", "why it ended")
        work = pod.volumes["work"]
        os.unlink(os.path.join(work, "sick"))
        wait_until(lambda: pod.ready, "it is ready again", LIMIT_S)
        server.send(signal.SIGSTOP)
        pod.grace_s = 1
        ended = pod.delete()["server"]
        expect(read(os.path.join(work, "stopped")), "asked\n", "preStop")
        expect(ended.code, 137, "exit code of what did not end within its grace")
        expect(cluster.findings[-1].name, "drain-overrun", "finding")
    except (AssertionError, OSError) as error:
        failed.append(str(error))
        show_logs(cluster)
        print(*cluster.findings, sep="\n")
    print(*failed, sep="\n")
    cluster.kill_everything()
    return 1 if failed else 0


# ---------------------------------------------------------------------------------------------------------------- proof

# Title, command line.
RUNS = (
    ("dev-cpu as it is rendered", ("overlay", "dev-cpu.yaml")),
    ("dev-cpu with component tokens", ("overlay", "dev-cpu.yaml", "--component", "tokens")),
    ("dev-cpu with two of each but the coordinator",
     ("overlay", "dev-cpu.yaml", "--full", "--replicas", "StatefulSet/sluice-rank=2", "--flag", "StatefulSet/sluice-coordinator",
      "ranks=2", "--replicas", "Deployment/sluice-actor=2", "--replicas", "Deployment/sluice-reward=2")),
    ("single-gpu-node on the processor",
     ("overlay", "single-gpu-node.yaml", "--flag", "StatefulSet/sluice-rank", "device=cpu", "--flag",
      "StatefulSet/sluice-rank", "precision=fp32")),
    ("The JobSet on dev-cpu, with two actors",
     ("overlay", "dev-cpu.yaml", "--job", "--component", "jobset", "--replicas", "JobSet/sluice-job/actor=2")),
    ("A TrainJob of the TrainingRuntime on dev-cpu, with two actors",
     ("overlay", "dev-cpu.yaml", "--train-job", "--component", "kubeflow-runtime", "--replicas", "TrainingRuntime/sluice/actor=2")),
    ("prod-tcp with two ranks, on the processor",
     ("overlay", "prod-tcp.yaml", "--replicas", "StatefulSet/sluice-rank=2", "--flag", "StatefulSet/sluice-coordinator",
      "ranks=2", "--flag", "StatefulSet/sluice-rank", "device=cpu", "--flag", "StatefulSet/sluice-rank",
      "precision=fp32", "--flag", "Deployment/sluice-actor", "device=cpu", "--flag", "Deployment/sluice-actor",
      "precision=fp32", "--replicas", "Deployment/sluice-actor=2", "--replicas", "Deployment/sluice-reward=2")),
)


def with_paths(arguments: Sequence[str]) -> list[str]:
    """A command line of RUNS, with the folder of its overlay."""
    return [os.path.join(RENDERED, word) if word.endswith(".yaml") else word for word in arguments]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """This script again, in namespaces of its own; what it prints is caught."""
    return subprocess.run([sys.executable, "-B", os.path.abspath(__file__), *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True, preexec_fn=harness.die_with_parent)


def proof(_: argparse.Namespace) -> int:
    failed, sections = False, []
    for title, arguments in RUNS:
        print(f"{title}: {' '.join(arguments)}", file=sys.stderr)
        answer = call(*with_paths(arguments))
        print(answer.stdout)
        if answer.returncode == sandbox.SKIPPED:
            return sandbox.SKIPPED
        failed |= answer.returncode != 0
        overrides = [word for word in arguments[2:] if word not in ("--full", "--job", "--train-job")]
        said = f"Overrides: `{' '.join(overrides)}`." if overrides else "No override."
        sections += [f"## {title}", "", said, "", answer.stdout.strip(), ""]
    rows = []
    for bug in plants.PLANTS:
        print(f"planting {bug.name}: {bug.says}", file=sys.stderr)
        answer = call("plant", bug.name)
        failed |= answer.returncode != 0
        found = [line for line in answer.stdout.splitlines() if line.startswith(bug.finding + ":")]
        rows.append(f"| {bug.says} | {clean(found[0]) if answer.returncode == 0 else 'NOT FOUND'} |")
    if failed:
        print("Not written: there were findings.", file=sys.stderr)
        return 1
    lines = ["# The mini-kubelet", "",
             "`./sluice proof kubelet` runs the pods of rendered overlays on one machine, as they are declared, and writes this "
             "page.", "What it does and what it cannot show stands in [kubernetes.md](../kubernetes.md). Probes and back-offs go at a "
             "tenth of", "their periods with ten times their failures, so budgets are as declared; grace periods are not "
             "shortened.", "", f"{datetime.date.today():%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Linux "
             f"{platform.release().split('-')[0]}. Times are of a busy machine.", "", *sections,
             "## Planted bugs", "", "Each in a copy of `dev-cpu`, with component `jobset` where it is of a JobSet, of which only the pods concerned are run.", "",
             "| bug | found as |", "| --- | --- |", *rows]
    os.makedirs(os.path.dirname(PAGE), exist_ok=True)
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return 0


def clean(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("overlay")
    one.add_argument("file")
    one.add_argument("--full", action="store_true")
    one.add_argument("--job", action="store_true", help="its JobSet alone, in place of the resident service")
    one.add_argument("--train-job", action="store_true", help="the same for what a TrainJob makes of its TrainingRuntime")
    one.add_argument("--component", action="append", default=[], help="with components that the overlay has not")
    one.add_argument("--replicas", action="append", default=[], metavar="OWNER=N")
    one.add_argument("--flag", action="append", default=[], nargs=2, metavar=("OWNER", "FLAG=VALUE"))
    one.set_defaults(call=overlay)
    one = commands.add_parser("plant")
    one.add_argument("name", choices=sorted(plants.BY_NAME))
    one.set_defaults(call=plant)
    commands.add_parser("parts").set_defaults(call=parts)
    commands.add_parser("proof").set_defaults(call=proof)
    arguments = parser.parse_args()
    if sandbox.inside():
        sandbox.prepare()
        return arguments.call(arguments)
    if reason := sandbox.why_not():
        print(f"mini-kubelet: skipped: {reason}", file=sys.stderr)
        return sandbox.SKIPPED
    return proof(arguments) if arguments.command == "proof" else sandbox.enter(os.path.abspath(__file__), sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
