"""What a JobSet must be able to do as declared: train, lose its learner in four ways, lose helpers, end; and its summary."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import jobs
from .cluster import Cluster
from .jobs import JobSetRun, Try
from .manifests import Object, find, title
from .pods import Container, Exit, Pod
from .probes import TOP, harness
from .scenario import GROUPS, Drain, Outcome, Run, ending, ledger, look_at_ports, tables

JOB_SET = "JobSet/sluice-job"
RUNTIME, TRAIN_JOB = "TrainingRuntime/sluice", "tiny"
LEARNER, REWARD, ACTOR = "rank", "reward", "actor"
DISTURBED = "disturbed"
STEPS = 30  # enough for every disturbance to come in the middle
DATA = "/srv/sluice/data/current"
SAME = (os.path.join("export", "final", "model.safetensors"), "optimizer.safetensors")  # of the run, of its last checkpoint


def contract() -> dict[int, str]:
    """Exit code -> what a Job must make of it, by the words of docs/reference/processes.md."""
    with open(os.path.join(TOP, "docs", "reference", "processes.md"), encoding="utf-8") as file:
        rows = re.findall(r"^\| (\d+) \| \w+ \| [^|]* \| ([^|]*) \|$", file.read(), re.MULTILINE)
    found = {}
    for code, again in rows:
        found[int(code)] = (jobs.IGNORE if "not a failure" in again else jobs.COUNT if "count it" in again else jobs.FAIL_JOB)
    found[harness.DONE] = jobs.SUCCEEDED
    return found


def wanted_action(end: jobs.End) -> str:
    """What the contract says of a learner's end. A signal's code is none of ours: a crash, which counts."""
    code, = end.codes.values()
    if code == harness.DONE:
        return jobs.SUCCEEDED
    return jobs.IGNORE if end.disrupted else contract().get(code, jobs.COUNT)


def rl_spec(**changes: Any) -> Object:
    """Synchronous, so that the result is a function of the seed alone; scores wait for a reward server that is replaced."""
    values = {"steps": STEPS, "staleness": 0, "reward": {"ranker": "cooccurrence", "deadline_s": 30}, **changes}
    spec: Object = harness.rl_spec(DATA, **values)
    return spec


@dataclass
class JobOutcome(Outcome):
    tries: list[tuple[str, ...]] = field(default_factory=list)
    endings: list[tuple[str, ...]] = field(default_factory=list)


class JobScenario(Run):
    learner_name = LEARNER  # of its replicated job and of its container

    def __init__(self, cluster: Cluster, say: Callable[[str], None]):
        super().__init__(cluster, say)
        self.outcome: JobOutcome = JobOutcome()
        self.shared = os.path.join(cluster.claims("sluice"), "sluice-shared")
        self.thing = self.made(cluster.things)
        self.title = title(self.thing)
        self.folder = os.path.join(self.shared, "runs", self.thing["metadata"]["name"])
        cluster.expected = self.why_expected

    def made(self, things: list[Object]) -> Object:
        """The JobSet that is run."""
        return find(things, JOB_SET)

    def why_expected(self, container: Container, exit: Exit) -> str:
        return "its Job's rules decide" if container.pod.made_of.owner == f"{self.title}/{self.learner_name}" else ""

    def why_expected_text(self, container: Container, exit: Exit) -> str:
        return "itself"

    # ------------------------------------------------------------------------------------------------------------ run

    def all(self) -> None:
        self.undisturbed()
        self.disturbed()
        self.compare()
        self.end_otherwise()

    def run(self, *parts: Callable[[], None]) -> JobOutcome:
        """All of it, or some parts for a planted bug; what is wrong is in cluster.findings."""
        try:
            self.prepare()
            for part in parts or (self.all,):
                part()
        except AssertionError as error:
            self.stopped_early(error)
        self.look_at_pods()
        return self.outcome

    def prepare(self) -> None:
        """A data set on the claim, as an earlier prepare job leaves it."""
        self.say("preparing a data set")
        for name in ("data", "runs"):
            os.makedirs(os.path.join(self.shared, name))
        events = harness.write_events(os.path.join(self.cluster.folder, "events.csv"))
        spec = harness.prepare_spec(events, os.path.join(self.shared, "data", "current"))
        spec["prepare"]["ranker"] = {"sequential": False}
        path = os.path.join(self.cluster.folder, "prepare.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(spec, file)
        subprocess.run([os.path.join(harness.BIN, "sluice-learner"), "run", path, "--run-folder",
                        os.path.join(self.cluster.folder, "prepare")], check=True, capture_output=True, timeout=240)

    def apply(self, spec: Object) -> JobSetRun:
        """The JobSet with another job.yaml."""
        self.write_spec(spec)
        run = JobSetRun(self.cluster, self.thing)
        run.start()
        return run

    def write_spec(self, spec: Object) -> None:
        config = next(thing for thing in self.cluster.things
                      if thing["kind"] == "ConfigMap" and title(thing).startswith("ConfigMap/sluice-job"))
        config["data"]["job.yaml"] = json.dumps(spec)

    def finish(self, run: JobSetRun, outcome: str, what: str) -> None:
        """Waits for the end, which must be this one, and judges what became of every try."""
        self.wait(run.over.is_set, f"the JobSet ends: {what}")
        self.judge(run, what)
        if run.outcome != outcome:
            self.cluster.find("jobset-outcome", self.title, f"{run.outcome} ({run.why}), want {outcome}: {what}")
        if run.restarts:
            self.cluster.find("jobset-restarted", self.title, f"restarted {run.restarts} times: {what}")

    def judge(self, run: JobSetRun, what: str) -> None:
        """What the rules made of each end of the learner, against the contract of exit codes."""
        for number, one in enumerate(run.tries(self.learner_name)):
            code, = one.end.codes.values()
            said = re.search(r"resumed from the checkpoint of step (\d+)", one.pod.containers[0].said())
            self.outcome.tries.append((what, one.pod.name, str(code), one.pod.containers[0].exits[-1].why, one.action,
                                       str(one.counted), f"step {said[1]}" if said else "the start"))
            self.judge_try(one)
            if number and not said and what == DISTURBED:
                self.cluster.find("no-resume", one.pod.name, f"a further try began anew; {one.pod.containers[0].last_words()}")

    def judge_try(self, one: Try) -> None:
        code, = one.end.codes.values()
        if one.action != wanted_action(one.end):
            self.cluster.find("job-rule", one.pod.name, f"exit code {code}{' of an evicted pod' if one.end.disrupted else ''}: "
                              f"{one.action}, want {wanted_action(one.end)} (docs/reference/processes.md)")

    def learner(self, run: JobSetRun) -> Pod:
        found = self.wait(lambda: next((pod for pod in run.pods(self.learner_name) if pod.ready), None), "the learner is ready")
        assert isinstance(found, Pod)
        return found

    # ------------------------------------------------------------------------------------------- the two runs compared

    def undisturbed(self) -> None:
        self.say(f"training {STEPS} steps undisturbed")
        run = self.apply(rl_spec())
        self.finish(run, "Completed", "undisturbed")
        self.look_at_results()
        shutil.move(self.folder, self.folder + "-undisturbed")

    def disturbed(self) -> None:
        self.say(f"training {STEPS} steps disturbed")
        run = self.apply(rl_spec())
        try:
            self.disturb(run)
            self.finish(run, "Completed", DISTURBED)
            self.look_at_results()
        finally:
            self.thaw(run)
            run.stop()

    def disturb(self, run: JobSetRun) -> None:
        self.learner(run)
        self.wait(lambda: len([pod for pod in run.pods(ACTOR) if pod.ready]) == self.parallelism(ACTOR), "the actors are ready")
        self.wait(lambda: harness.last_step(self.folder), "its first step")
        self.scrape()
        self.goes_on(run, "its first steps")
        look_at_ports(self.cluster)
        self.look_at_edges()
        self.lose_pods(run)
        self.thaw(run)

    def lose_pods(self, run: JobSetRun) -> None:
        self.end_learner(run, "evicted", lambda pod: run.evict(pod))
        self.end_learner(run, "deleted", lambda pod: run.delete(pod))
        self.kill_learner(run)
        self.replace_helper(run, ACTOR)
        self.replace_helper(run, REWARD)

    def parallelism(self, name: str) -> int:
        return int(next(job["template"]["spec"]["parallelism"] for job in self.thing["spec"]["replicatedJobs"] if job["name"] == name))

    def freeze(self, run: JobSetRun) -> None:
        """Stops the actors, so that what happens next comes in the middle of the job."""
        for pod in run.pods(ACTOR):
            pod.containers[0].send(signal.SIGSTOP)

    def thaw(self, run: JobSetRun) -> None:
        for pod in run.pods(ACTOR):
            pod.containers[0].send(signal.SIGCONT)

    def goes_on(self, run: JobSetRun, what: str) -> None:
        """Lets the job train at least a step further, and stops it there again."""
        at = harness.last_step(self.folder)
        self.thaw(run)
        self.wait(lambda: run.over.is_set() or (harness.last_step(self.folder) > at and harness.checkpoints(self.folder)),
                  f"the job goes on after {what}")
        self.freeze(run)
        if run.outcome == "Failed":
            self.cluster.find("jobset-outcome", self.title, f"Failed ({run.why}) after {what}")
        elif run.over.is_set() or os.path.exists(os.path.join(self.folder, "results.json")):
            self.cluster.find("stuck", "the run", "the job was over before it could be disturbed")
        if self.cluster.findings:
            raise AssertionError(f"stopped after {what}")

    def end_learner(self, run: JobSetRun, how: str, end: Callable[[Pod], None]) -> None:
        """TERM to the learner: it must save, end with 10 within its grace, and go on in another pod."""
        pod, step = self.learner(run), harness.last_step(self.folder)
        self.say(f"{pod.name} is {how} after step {step}")
        thread = threading.Thread(target=end, args=(pod,))
        thread.start()
        self.wait(pod.deleted.is_set, "the pod is told to end")
        self.thaw(run)
        thread.join()
        self.drained(pod, f"{how} after step {step}", harness.PREEMPTED)
        self.judge_end_of(run, pod)
        self.goes_on(run, f"its learner was {how}")
        self.outcome.notes.append(f"The learner was {how} after step {step}; its successor went on.")

    def judge_end_of(self, run: JobSetRun, pod: Pod) -> None:
        self.wait(lambda: any(one.pod is pod for one in run.tries(self.learner_name)), "the learner's Job knows of its end")
        self.judge_try(next(one for one in run.tries(self.learner_name) if one.pod is pod))

    def kill_learner(self, run: JobSetRun) -> None:
        pod, step = self.learner(run), harness.last_step(self.folder)
        self.say(f"killing {pod.name} after step {step}")
        pod.containers[0].why = "killed by this run"
        pod.containers[0].send(signal.SIGKILL)
        self.judge_end_of(run, pod)
        self.goes_on(run, "its learner was killed")
        self.outcome.notes.append(f"The learner was killed after step {step}; its successor went on from the checkpoint before.")

    def replace_helper(self, run: JobSetRun, name: str) -> None:
        """A helper that is evicted ends well, and another comes in its place."""
        pod, step = run.pods(name)[-1], harness.last_step(self.folder)
        self.say(f"{pod.name} is evicted after step {step}")
        pod.containers[0].send(signal.SIGCONT)  # a frozen actor could not finish its lease
        run.evict(pod)
        self.drained(pod, f"evicted after step {step}", harness.DONE)
        self.wait(lambda: run.tries(name), "its Job knows of its end")
        job = next(one for one in run.jobs if one.name == name)
        if job.complete or len(job.succeeded) + self.parallelism(name) > job.completions:
            self.cluster.find("not-replaced", pod.name, f"ended with 0, which its Job counts: {len(job.succeeded)} of {job.completions} "
                              f"completions are done, so {self.parallelism(name)} pods are no longer made")
        self.wait(lambda: len([one for one in run.pods(name) if one.ready]) == self.parallelism(name), f"another {name} is ready")
        self.goes_on(run, f"its {name} was evicted")
        self.outcome.notes.append(f"{name.capitalize()} {pod.name} was evicted after step {step}; another came in its place.")

    def drained(self, pod: Pod, when: str, code: int) -> None:
        found = pod.containers[0].exits[-1]
        self.outcome.drains.append(Drain(pod.name, when, found.code, found.drained_s or 0, pod.grace_s))
        if found.code != code:
            self.cluster.find("drain-code", pod.name, f"ended with {found.code} on TERM, want {code}")

    # ---------------------------------------------------------------------------------------------------------- results

    def look_at_results(self) -> None:
        try:
            results, trained = harness.SluiceTest().check_rl_results(self.folder, STEPS, GROUPS)
        except (AssertionError, OSError) as error:
            self.cluster.find("steps", self.folder, str(error))
            return
        self.outcome.steps, self.outcome.ledger = len(trained), results["numbers"]["ledger"]

    def compare(self) -> None:
        """The disturbed run ended where the undisturbed one did, to the byte."""
        digests = []
        for folder in (self.folder, self.folder + "-undisturbed"):
            newest = os.path.join("checkpoints", harness.checkpoints(folder)[-1])
            digests.append([harness.sha256(os.path.join(folder, SAME[0])), harness.sha256(os.path.join(folder, newest, SAME[1]))])
        if digests[0] != digests[1]:
            self.cluster.find("other-result", self.folder, f"parameters and moments are {digests[0]}, undisturbed {digests[1]}")
        else:
            self.outcome.notes.append(f"Parameters and moments at the end are those of the undisturbed run, to the byte (model {digests[0][0][:12]}).")

    # ---------------------------------------------------------------------------------------------------- other endings

    def end_otherwise(self) -> None:
        """Real causes of the other exit codes."""
        self.fails(harness.PERMISSION, "another seed in the same run folder", {**rl_spec(), "seed": 9})
        shutil.move(self.folder, self.folder + "-disturbed")
        self.bad_spec()
        self.fails(harness.INTEGRITY, "a data set that is not there", {**rl_spec(), "data": "/srv/sluice/data/nowhere"})
        shutil.rmtree(self.folder, ignore_errors=True)
        self.outage()

    def bad_spec(self) -> None:
        self.fails(harness.USAGE, "a key that no spec has", rl_spec(stepz=STEPS))

    def fails(self, code: int, what: str, spec: Object) -> None:
        self.say(f"a job that must fail with {code}: {what}")
        run = self.apply(spec)
        try:
            self.wait(lambda: run.tries(self.learner_name), f"the learner ends: {what}")
            self.judge_try(run.tries(self.learner_name)[0])
            self.finish(run, "Failed", what)
            codes = [one.end.codes[self.learner_name] for one in run.tries(self.learner_name)]
            if codes != [code]:
                self.cluster.find("other-code", self.title, f"{what}: the learner ended with {codes}, want {code} once")
            self.outcome.endings.append((what, str(code), str(len(codes)), run.outcome))
        finally:
            run.stop()

    def outage(self) -> None:
        """The reward server hangs, and the job does not wait for it: transient, counted, and done once it answers again."""
        what = "a reward server that hangs for a while"
        self.say(f"a job with {what}")
        run = self.apply(rl_spec(steps=6, on_reward_outage="fail", operational_steps=1,
                                 reward={"ranker": "cooccurrence", "deadline_s": 0.2, "park_s": 0}))
        try:
            self.learner(run)
            for pod in run.pods(REWARD):
                pod.containers[0].send(signal.SIGSTOP)
            self.wait(lambda: run.tries(self.learner_name), "the learner gives up")
            for pod in run.pods(REWARD):
                pod.containers[0].send(signal.SIGCONT)
            self.finish(run, "Completed", what)
            if harness.TRANSIENT not in [one.end.codes[self.learner_name] for one in run.tries(self.learner_name)]:
                self.cluster.find("not-transient", self.title, f"{what}: {[one.end.codes for one in run.tries(self.learner_name)]}")
            self.outcome.endings.append((what, str(harness.TRANSIENT), str(len(run.tries(self.learner_name))), run.outcome))
        finally:
            run.stop()


class TrainScenario(JobScenario):
    """A TrainJob of the TrainingRuntime, beside the resident reward servers."""

    learner_name = "node"

    def made(self, things: list[Object]) -> Object:
        return find(things, f"JobSet/{TRAIN_JOB}")

    def all(self) -> None:
        self.cluster.start("Deployment/sluice-reward")
        self.wait(lambda: all(pod.ready for pod in self.cluster.of("Deployment/sluice-reward")), "the resident reward servers are ready")
        self.undisturbed()
        self.disturbed()
        self.compare()

    def write_spec(self, spec: Object) -> None:
        folder = os.path.join(self.shared, "specs")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{TRAIN_JOB}.yaml"), "w", encoding="utf-8") as file:
            json.dump(spec, file)

    def lose_pods(self, run: JobSetRun) -> None:
        self.end_learner(run, "evicted", lambda pod: run.evict(pod))
        self.kill_learner(run)


def summary(cluster: Cluster, outcome: JobOutcome) -> list[str]:
    """Tables in Markdown."""
    lines = ["| run | learner's pod | exit code | ended by | its Job | failures counted | began at |",
             "| --- | --- | --- | --- | --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in outcome.tries)]
    if outcome.endings:
        lines += ["", "| the JobSet with | exit code | tries | JobSet |", "| --- | --- | --- | --- |",
                  *(f"| {' | '.join(row)} |" for row in outcome.endings)]
    return [*lines, "", *tables(cluster, outcome), "", f"Trained {outcome.steps} of {STEPS} steps; the ledger at the end: "
            f"{ledger(outcome.ledger)}.", *ending(cluster, outcome)]
