"""What an overlay must be able to do as declared: start, prepare, train, lose a learner, be drained; and its summary."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import edges
from .cluster import Cluster, memory_is_limited, role
from .manifests import Object, PodSpec, load, title
from .network import inside
from .pods import Container, Exit, Pod
from .probes import TOP, harness
from .secrets_written import CLIENT_TOKEN

COORDINATOR, RANK = "StatefulSet/sluice-coordinator", "StatefulSet/sluice-rank"
ACTOR, REWARD = "Deployment/sluice-actor", "Deployment/sluice-reward"
CLIENT = "Client"  # owner of the client's pod
STEPS, GROUPS = 20, 16
LIMIT_S = 240  # for any one thing to happen, on however busy a machine
DATA = "/srv/sluice/data/current"
CLIENT_POD = os.path.join(TOP, "deploy", "kubernetes", "client.yaml")


@dataclass
class Drain:
    pod: str
    when: str
    code: int
    took_s: float
    grace_s: float


@dataclass
class Outcome:
    steps: int = 0
    epochs: int = 0
    ledger: dict[str, int] = field(default_factory=dict)
    hr: float | None = None
    scraped: dict[str, int] = field(default_factory=dict)
    drains: list[Drain] = field(default_factory=list)
    edges: list[edges.Row] = field(default_factory=list)
    refused: int = 0
    pods: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Run:
    """What is done with a cluster, and what came of it."""

    def __init__(self, cluster: Cluster, say: Callable[[str], None]):
        self.cluster, self.say = cluster, say
        self.outcome = Outcome()

    def wait(self, condition: Callable[[], object], what: str) -> object:
        """Until something true; AssertionError after LIMIT_S, or as soon as something is found to be wrong."""
        def look() -> object:
            if self.cluster.findings:
                raise AssertionError(f"stopped before {what}")
            return condition()
        return harness.wait_until(look, what, LIMIT_S)

    def stopped_early(self, error: AssertionError) -> None:
        self.cluster.find_refused()
        if not self.cluster.findings:
            self.cluster.find("stuck", "the run", str(error))
        self.outcome.notes.append(f"The run stopped early: {error}")

    def scrape(self) -> None:
        """As Prometheus does: every port named metrics, from its own pod, through the policies."""
        place = self.cluster.guests["prometheus"].port.namespace
        for pod in self.cluster.pods:
            for container in pod.containers:
                if "metrics" in container.ports:
                    address = f"{pod.port.address}:{container.ports['metrics']}"
                    try:
                        samples = inside(place, lambda address=address: harness.scrape(address))  # type: ignore[misc]
                        self.outcome.scraped[pod.name] = len([key for key in samples if key.startswith("sluice_")])
                    except (OSError, AssertionError) as error:
                        self.cluster.find("metrics", pod.name, f"{address}: {error}")

    def look_at_edges(self) -> None:
        self.say("comparing connections with the policies")
        self.cluster.find_refused()
        self.outcome.edges = edges.compare(self.cluster)
        self.outcome.refused = edges.probe_forbidden(self.cluster)

    def look_at_pods(self) -> None:
        look_at_ports(self.cluster)
        for pod in self.cluster.pods + self.cluster.gone:
            if not pod.containers or pod.made_of.owner == CLIENT:
                continue
            for container in pod.containers:
                tries = ", ".join(f"{name} {probe.passed}/{probe.tries}" for name, probe in container.probes.items())
                peak = container.memory.peak() if memory_is_limited() else None
                limit = container.memory.limit
                memory = f"{peak / 2**20:.0f} of {limit / 2**20:.0f} MiB" if peak and limit else "not limited here"
                ends = ", ".join(f"{exit.code} ({exit.why if exit.why != 'itself' else self.why_expected_text(container, exit)})"
                                 for exit in container.exits if exit.why != "drained")
                self.outcome.pods.append((container.title, str(container.starts), ends or "none", tries, memory))

    def why_expected_text(self, container: Container, exit: Exit) -> str:
        return "no data set yet" if role(container.pod) == "reward" and exit.code == harness.INTEGRITY else "itself"


class Scenario(Run):
    """full: a rank is drained in the middle as well, and a supervised job goes first."""

    def __init__(self, cluster: Cluster, full: bool, say: Callable[[str], None]):
        super().__init__(cluster, say)
        self.full = full
        self.data_since: float | None = None
        cluster.expected = self.why_expected
        self.client: Pod = self.make_client()

    def why_expected(self, container: Container, exit: Exit) -> str:
        if role(container.pod) == "reward" and exit.code == harness.INTEGRITY and (
                self.data_since is None or container.began < self.data_since):
            return "there was no data set yet"
        return ""

    # ------------------------------------------------------------------------------------------------------ client

    def make_client(self) -> Pod:
        """deploy/kubernetes/client.yaml, with a container for each command that goes on at the same time, and with specs."""
        folder = self.cluster.folder
        events = harness.write_events(os.path.join(folder, "events.csv"))
        with open(events, encoding="utf-8") as file:
            data = {"events.csv": file.read()}
        prepare = harness.prepare_spec("/srv/sluice/events.csv", DATA)
        prepare["prepare"]["ranker"] = {"sequential": False}
        data["prepare.yaml"] = json.dumps(prepare)
        data["sft.yaml"] = json.dumps({"name": "tiny-sft", "kind": "sft", "seed": 5, "data": DATA, "model": harness.model_spec(),
                                       "sft": {"passes": 1, "targets_per_step": 2000, "validation": {"beams": 10}}})
        data["rl.yaml"] = json.dumps(harness.rl_spec(DATA, steps=STEPS))
        self.cluster.things.append({"kind": "ConfigMap", "metadata": {"name": "client", "namespace": "sluice"}, "data": data})
        with open(CLIENT_POD, encoding="utf-8") as file:
            declared, = load(file.read())
        spec = declared["spec"]
        del spec["activeDeadlineSeconds"]  # longer than any run
        container, = spec["containers"]
        container["volumeMounts"].append({"name": "specs", "mountPath": "/specs"})
        spec["volumes"].append({"name": "specs", "configMap": {"name": "client"}})
        if any(title(thing) == f"Secret/{CLIENT_TOKEN}" for thing in self.cluster.things):  # in place of the certificate
            container["env"] = [entry for entry in container["env"] if entry["name"] not in ("SLUICE_TLS_CERT", "SLUICE_TLS_KEY")]
            container["env"].append({"name": "SLUICE_TOKEN_FILE", "value": "/token/token"})
            container["volumeMounts"].append({"name": "token", "mountPath": "/token", "readOnly": True})
            spec["volumes"].append({"name": "token", "secret": {"secretName": CLIENT_TOKEN, "defaultMode": 0o440}})
            tls = next(volume["secret"] for volume in spec["volumes"] if volume["name"] == "tls")
            tls["items"] = [{"key": "ca.crt", "path": "ca.crt"}]
        spec["initContainers"] = [{**container, "name": "events", "command": ["cp", "/specs/events.csv", "/srv/sluice/events.csv"]}]
        spec["containers"] = [{**container, "name": name} for name in ("watch", "ask")]  # two commands at once
        labels = declared["metadata"]["labels"]
        pod = self.cluster.add(PodSpec("client", "sluice", labels, {}, spec, CLIENT))
        pod.on_demand = True
        return pod

    def submit(self, name: str) -> Container:
        container = self.client.containers[0]
        container.start(["sluicectl", "submit", f"/specs/{name}.yaml", "--watch"])
        return container

    def ask(self, *arguments: str) -> Object:
        answers = []

        def look() -> bool:
            """Asked again while the coordinator does not answer within sluicectl's own patience: machines are busy."""
            answers.append(self.client.run(["sluicectl", "-o", "json", *arguments], 1))
            return answers[-1][0] != harness.TRANSIENT
        self.wait(look, f"the coordinator answers {' '.join(arguments)}")
        code, said = answers[-1]
        if code != harness.DONE:
            raise AssertionError(f"sluicectl {' '.join(arguments)} ended with {code}: {said}")
        return json.loads(said)

    def finish(self, name: str) -> Object:
        """Runs a job to its end, which must be good; its description."""
        watch = self.submit(name)
        self.wait(watch.ended.is_set, f"job {name} ends")
        return self.good(watch, name)

    def good(self, watch: Container, name: str) -> Object:
        if watch.exits[-1].code != harness.DONE:
            self.cluster.find("job-failed", name, f"exit code {watch.exits[-1].code}: {watch.said()[-500:]}")
            raise AssertionError(f"job {name} failed")
        jobs = self.ask("list")["jobs"]
        return self.ask("describe", next(job["job_id"] for job in jobs if job["kind"] == name))

    # --------------------------------------------------------------------------------------------------------- run

    def wait_ready(self, *owners: str) -> None:
        for owner in owners:
            try:
                self.wait(lambda owner=owner: all(pod.ready for pod in self.cluster.of(owner)), f"{owner} is ready")  # type: ignore[misc]
            except AssertionError:
                self.find_unready(owner)
                raise

    def find_unready(self, owner: str) -> None:
        for pod in self.cluster.of(owner):
            for container in pod.containers:
                if not container.ready and not self.cluster.findings:
                    why = "; ".join(f"{probe}: {probe.why}" for probe in container.probes.values() if probe.why)
                    self.cluster.find("not-ready", container.title, f"{why or 'not started'}; {container.last_words()}")

    def run(self) -> Outcome:
        """All of it; what is wrong is in cluster.findings."""
        try:
            self.start()
            self.train()
            self.look_at_edges()
        except AssertionError as error:
            self.stopped_early(error)
            self.look_at_pods()
            return self.outcome
        self.look_at_pods()
        self.drain_all()
        return self.outcome

    def start(self) -> None:
        self.say("starting every pod")
        self.cluster.start()
        self.client.start()
        self.wait_ready(COORDINATOR, RANK, ACTOR)
        self.wait(lambda: self.client.initialized, "the events are on the shared claim")
        self.say("preparing a data set through the coordinator")
        self.finish("prepare")
        self.data_since = time.monotonic()
        self.wait_ready(REWARD)
        if self.full:
            self.say("training supervised")
            self.finish("sft")

    def train(self) -> None:
        self.say(f"training {STEPS} steps of rl")
        watch = self.submit("rl")
        runs = os.path.join(self.cluster.claims("sluice"), "sluice-shared", "runs")
        folder = str(self.wait(lambda: self.folder_of_rl(runs), "the job has a run folder"))
        self.wait(lambda: harness.checkpoints(folder), "a checkpoint")
        self.kill_learner(folder)
        self.wait(lambda: harness.last_step(folder) > self.killed_at or watch.ended.is_set(), "the job goes on")
        self.drain_in_the_middle(folder, ACTOR)
        if self.full:
            self.drain_in_the_middle(folder, RANK)
        self.scrape()
        self.wait(watch.ended.is_set, "the rl job ends")
        job = self.good(watch, "rl")
        self.outcome.epochs = job["epoch"]
        try:
            results, trained = harness.SluiceTest().check_rl_results(folder, STEPS, GROUPS)
        except AssertionError as error:
            self.cluster.find("steps", folder, str(error))
            return
        self.outcome.steps, self.outcome.ledger = len(trained), results["numbers"]["ledger"]
        self.outcome.hr = results["numbers"]["final"]["validation/hr@10"]

    @staticmethod
    def folder_of_rl(runs: str) -> str:
        for name in os.listdir(runs) if os.path.isdir(runs) else []:
            if os.path.exists(os.path.join(runs, name, "checkpoints")) and harness.read_metrics(os.path.join(runs, name)):
                if any("policy_version" in row for row in harness.read_metrics(os.path.join(runs, name))):
                    return os.path.join(runs, name)
        return ""

    def actors(self) -> list[Container]:
        return [container for pod in self.cluster.of(ACTOR) for container in pod.containers]

    def freeze(self, folder: str) -> None:
        """Stops the actors, so that what happens next comes in the middle of the job."""
        for container in self.actors():
            container.send(signal.SIGSTOP)
        if os.path.exists(os.path.join(folder, "results.json")):
            self.cluster.find("stuck", "the run", "the job was over before it could be disturbed")

    def thaw(self) -> None:
        for container in self.actors():
            container.send(signal.SIGCONT)

    def kill_learner(self, folder: str) -> None:
        self.freeze(folder)
        victim = self.cluster.of(RANK)[0].containers[0]
        coordinator = self.cluster.of(COORDINATOR)[0].containers[0]
        formed, starts = coordinator.said().count("group formed"), victim.starts
        self.killed_at = harness.last_step(folder)
        self.say(f"killing {victim.pod.name} after step {self.killed_at}")
        victim.why = "killed by this run"
        victim.send(signal.SIGKILL)
        self.thaw()
        self.wait(lambda: coordinator.said().count("group formed") > formed, "the group forms again")
        self.wait(lambda: victim.starts > starts and victim.ready, "the rank is started again and ready")
        self.outcome.notes.append(f"{victim.pod.name} was killed after step {self.killed_at}, started again, and the job went on.")

    def drain_in_the_middle(self, folder: str, owner: str) -> None:
        step = harness.last_step(folder)
        pod = self.cluster.of(owner)[-1]
        self.say(f"draining {pod.name} after step {step}")
        self.freeze(folder)
        thread = threading.Thread(target=self.drain, args=(pod, f"after step {step}"))
        thread.start()
        self.wait(pod.deleted.is_set, "the pod is told to end")
        if owner == ACTOR:  # a rank saves a checkpoint without the actors; a frozen actor could not finish its lease
            self.thaw()
            successor = self.cluster.replace(pod)
            thread.join()
        else:
            thread.join()
            successor = self.cluster.replace(pod)
            self.thaw()
        self.wait(lambda: successor.ready, f"{successor.name}, the successor, is ready")
        self.outcome.notes.append(f"{pod.name} was drained after step {step}; its successor took over.")

    def drain(self, pod: Pod, when: str) -> None:
        for exit in pod.delete().values():
            self.outcome.drains.append(Drain(pod.name, when, exit.code, exit.drained_s or 0, pod.grace_s))
            if exit.code != harness.DONE and self.data_since is not None:
                self.cluster.find("drain-code", pod.name, f"ended with {exit.code} on TERM, want 0")

    def drain_all(self) -> None:
        self.say("draining every pod")
        threads = [threading.Thread(target=self.drain, args=(pod, "at the end"))
                   for pod in list(self.cluster.pods) if pod.containers and pod is not self.client]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def look_at_ports(cluster: Cluster) -> None:
    """What listens is declared, and what is declared listens; beyond that only what policies open as a range."""
    for pod in cluster.pods:
        if not pod.ready:
            continue
        listening = pod.listening()
        ports = {number for container in pod.containers for number in container.ports.values()}
        ranges = [one for other in cluster.pods if other is not pod
                  for one in cluster.policies.one_side(pod, other, "Ingress") if one.low != one.high]
        for number in sorted(ports - listening):
            cluster.find("port-silent", pod.name, f"declares port {number}, and nothing listens there")
        for number in sorted(listening - ports):
            if not any(one.low <= number <= one.high for one in ranges):
                cluster.find("port-undeclared", pod.name, f"listens at {number}, which no container declares")


# -------------------------------------------------------------------------------------------------------------- summary

def tables(cluster: Cluster, outcome: Outcome) -> list[str]:
    """Pods, edges and drains in Markdown."""
    lines = ["| container | starts | ended before its drain | probes passed/asked | memory at most |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in outcome.pods]
    lines += ["", "| from | to | port | pairs of pods that used it |", "| --- | --- | --- | --- |"]
    lines += [f"| {source} | {target} | {port} | {row.pairs or 'none: ' + (row.exception or 'unused')} |"
              for row in outcome.edges for source, target, port in [row.edge]]
    lines += ["", f"Connections that no edge allows: {outcome.refused} tried between pods and out of the cluster, all refused "
              "by a policy." if not any(found.name == "edge-open" for found in cluster.findings)
              else "Some forbidden connections were let through."]
    lines += ["", "| pod drained | when | exit code | took | grace |", "| --- | --- | --- | --- | --- |"]
    return lines + [f"| {one.pod} | {one.when} | {one.code} | {one.took_s:.1f} s | {one.grace_s:.0f} s |" for one in outcome.drains]


def ending(cluster: Cluster, outcome: Outcome) -> list[str]:
    """What was scraped, what else is to be said, and what was found."""
    lines = [f"Scraped from the pod of Prometheus: {', '.join(f'{pod} ({count} series)' for pod, count in outcome.scraped.items())}."]
    lines += outcome.notes
    lines += ["", "Findings: none." if not cluster.findings else "Findings:"]
    return lines + [f"- {finding}" for finding in cluster.findings]


def ledger(numbers: dict[str, int]) -> str:
    return ", ".join(f"{value:.0f} {key}" for key, value in numbers.items()) or "unknown"


def summary(cluster: Cluster, outcome: Outcome) -> list[str]:
    return [*tables(cluster, outcome), "", f"Trained {outcome.steps} of {STEPS} steps in {outcome.epochs} epochs of the group; the "
            f"ledger at the end: {ledger(outcome.ledger)}.", *ending(cluster, outcome)]
