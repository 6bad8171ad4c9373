"""The controllers of JobSets and of their Jobs: which pods there are to be, and what a pod's end means.

By the code of JobSet 0.12 (jobset.x-k8s.io/v1alpha2) and by what batch/v1 says of Jobs with a podFailurePolicy. Decisions
are pure functions; JobSetRun acts on them. Knows nothing of Sluice. Fields that it does not act on are refused.
"""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .manifests import Object, PodSpec, Unsupported, matches, title

if TYPE_CHECKING:
    from .cluster import Cluster
    from .pods import Pod

DOMAIN = "jobset.sigs.k8s.io"
SUCCEEDED, IGNORE, COUNT, FAIL_JOB = "Succeeded", "Ignore", "Count", "FailJob"
FAIL_SET, RESTART_SET, RESTART_UNCOUNTED = "FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"
BACK_OFF_S, MOST_BACK_OFF_S = 10, 600
POLL_S = 0.05
# What is acted on, by the place.
KNOWN = {
    "spec": {"suspend", "network", "successPolicy", "failurePolicy", "replicatedJobs"},
    "network": {"enableDNSHostnames", "subdomain", "publishNotReadyAddresses"},
    "successPolicy": {"operator", "targetReplicatedJobs"},
    "failurePolicy": {"maxRestarts", "restartStrategy", "rules"},
    "failurePolicy.rules": {"name", "action", "targetReplicatedJobs", "onJobFailureReasons"},
    "replicatedJobs": {"name", "replicas", "dependsOn", "template"},
    "dependsOn": {"name", "status"},
    "job": {"completionMode", "completions", "parallelism", "backoffLimit", "podFailurePolicy", "template"},
    "podFailurePolicy.rules": {"action", "onPodConditions", "onExitCodes"},
    "onExitCodes": {"containerName", "operator", "values"},
}


def refuse_unknown(place: str, node: Object) -> Object:
    if unknown := set(node) - KNOWN[place]:
        raise Unsupported(f"JobSet, {place}: fields {sorted(unknown)}")
    return node


@dataclass(frozen=True)
class End:
    """How a pod ended: the exit code of each container, and whether it carries the condition DisruptionTarget."""
    codes: dict[str, int]
    disrupted: bool = False


def applies(rule: Object, end: End) -> bool:
    """Whether a rule of a podFailurePolicy is about this end. Exit code 0 is no failure and never matches."""
    if "onPodConditions" in rule:
        for entry in rule["onPodConditions"]:
            if entry != {"type": "DisruptionTarget"} and entry != {"type": "DisruptionTarget", "status": "True"}:
                raise Unsupported(f"onPodConditions {entry}")
        return end.disrupted and bool(rule["onPodConditions"])
    wanted = refuse_unknown("onExitCodes", rule["onExitCodes"])
    codes = [code for name, code in end.codes.items() if code != 0 and wanted.get("containerName", name) == name]
    inside = {"In": True, "NotIn": False}[wanted["operator"]]
    return any((code in wanted["values"]) == inside for code in codes)


def action_on_pod(job: Object, end: End) -> str:
    """What a Job, given by its spec, makes of a pod's end: SUCCEEDED, or the action of the first rule that applies."""
    if all(code == 0 for code in end.codes.values()):
        return SUCCEEDED  # also of a pod that was drained: its completion is done, nobody takes its place
    for rule in (job.get("podFailurePolicy") or {}).get("rules") or []:
        if applies(refuse_unknown("podFailurePolicy.rules", rule), end):
            if rule["action"] not in (IGNORE, COUNT, FAIL_JOB):
                raise Unsupported(f"podFailurePolicy action {rule['action']}")
            return str(rule["action"])
    return COUNT


def action_on_job(job_set: Object, name: str, reason: str) -> str:
    """What a JobSet, given by its spec, does when the Job of a replicated job has failed for a reason."""
    policy = job_set.get("failurePolicy")
    if policy is None:
        return FAIL_SET
    for rule in refuse_unknown("failurePolicy", policy).get("rules") or []:
        refuse_unknown("failurePolicy.rules", rule)
        if name in (rule.get("targetReplicatedJobs") or [name]) and reason in (rule.get("onJobFailureReasons") or [reason]):
            if rule["action"] not in (FAIL_SET, RESTART_SET, RESTART_UNCOUNTED):
                raise Unsupported(f"failurePolicy action {rule['action']}")
            return str(rule["action"])
    return RESTART_SET


def service_of(job_set: Object) -> Object | None:
    """The headless Service that gives a JobSet's pods their names; None if it wants none."""
    network = refuse_unknown("network", job_set["spec"].get("network") or {})
    if not network.get("enableDNSHostnames", True):
        return None
    return {"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": subdomain(job_set), "namespace": job_set["metadata"].get("namespace", "default")},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": network.get("publishNotReadyAddresses", True),
                     "selector": {f"{DOMAIN}/jobset-name": job_set["metadata"]["name"]}, "ports": []}}


def subdomain(job_set: Object) -> str:
    return str((job_set["spec"].get("network") or {}).get("subdomain", job_set["metadata"]["name"]))


def job_set_of(runtime: Object, name: str) -> Object:
    """The JobSet that Kubeflow Trainer 2.3 makes of a TrainingRuntime for a TrainJob that says nothing but its name."""
    spec = copy.deepcopy(runtime["spec"]["template"]["spec"])
    for one in spec["replicatedJobs"]:
        job = one["template"]["spec"]
        if (one["template"].get("metadata") or {}).get("labels", {}).get("trainer.kubeflow.org/trainjob-ancestor-step") == "trainer":
            job["parallelism"] = (runtime["spec"].get("mlPolicy") or {}).get("numNodes", 1)
        job["completions"] = job["parallelism"] = job.get("parallelism", 1)  # whatever the runtime said
    return {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet",
            "metadata": {"name": name, "namespace": runtime["metadata"].get("namespace", "default")}, "spec": spec}


@dataclass
class Try:
    """One pod that ended, and what its Job made of it."""
    job: str
    pod: Pod
    end: End
    action: str
    counted: int  # failures of the Job that count, this one included


@dataclass
class JobRun:
    """One child Job."""
    name: str  # of the replicated job
    index: int  # among its replicas
    spec: Object
    active: dict[int, Pod] = field(default_factory=dict)  # completion index -> its pod
    succeeded: set[int] = field(default_factory=set)
    counted: int = 0
    in_a_row: int = 0  # failures of any kind, for the back-off
    not_before: float = 0
    failed: str = ""  # why

    @property
    def completions(self) -> int:
        return int(self.spec["completions"])

    @property
    def complete(self) -> bool:
        return len(self.succeeded) >= self.completions

    @property
    def ready(self) -> bool:
        """As JobSet has it: pods that have succeeded count as ready."""
        pods = list(self.active.values())
        return (sum(pod.ready for pod in pods) + len(self.succeeded)
                >= min(self.completions, int(self.spec["parallelism"])))


class JobSetRun:
    """A JobSet that was applied, until it completes or fails. A thread of its own reconciles; evict() and the rest may be
    called from any other."""

    def __init__(self, cluster: Cluster, thing: Object):
        self.cluster, self.thing = cluster, thing
        self.spec = refuse_unknown("spec", thing["spec"])
        self.name = str(thing["metadata"]["name"])
        if self.spec.get("suspend"):
            raise Unsupported("a JobSet that waits for its queue")
        if (self.spec.get("failurePolicy") or {}).get("restartStrategy", "Recreate") != "BlockingRecreate":
            raise Unsupported("a restartStrategy that lets old and new pods run side by side")
        refuse_unknown("successPolicy", self.spec.get("successPolicy") or {})
        for one in self.spec["replicatedJobs"]:
            job = refuse_unknown("job", refuse_unknown("replicatedJobs", one)["template"]["spec"])
            if job.get("completionMode") != "Indexed" or job["template"]["spec"].get("restartPolicy") != "Never":
                raise Unsupported(f"{one['name']}: want completionMode Indexed and restartPolicy Never")
            if job["template"]["spec"].get("initContainers"):
                raise Unsupported(f"{one['name']}: init containers of a Job")
        self.jobs: list[JobRun] = []
        self.restarts = self.counted_restarts = 0
        self.outcome = ""  # "Completed" or "Failed" once it is over and its pods are gone
        self.why = ""
        self.history: list[Try] = []
        self.over = threading.Event()
        self.stopped = threading.Event()
        self.disrupted: set[str] = set()  # uids of pods with the condition DisruptionTarget
        self.thread = threading.Thread(target=self.live, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Deletes it with its pods, as kubectl delete does."""
        self.stopped.set()
        self.thread.join()
        self.delete_pods(self.pods())

    def live(self) -> None:
        while not self.over.is_set() and not self.stopped.wait(POLL_S):
            self.step(time.monotonic())

    # ------------------------------------------------------------------------------------------- what others ask and do

    def pods(self, job: str = "") -> list[Pod]:
        return [pod for one in list(self.jobs) if job in ("", one.name) for pod in list(one.active.values())]

    def tries(self, job: str) -> list[Try]:
        return [one for one in list(self.history) if one.job == job]

    def evict(self, pod: Pod) -> None:
        """As the eviction API does: the condition first, then a deletion with grace."""
        self.disrupted.add(pod.uid)
        pod.delete("evicted")

    @staticmethod
    def delete(pod: Pod) -> None:
        """As kubectl delete pod does: TERM and grace, no condition."""
        pod.delete("deleted")

    # ------------------------------------------------------------------------------------------------------ reconciling

    def step(self, now: float) -> None:
        for job in self.jobs:
            for index, pod in list(job.active.items()):
                if pod.gone or (pod.finished and not pod.deleted.is_set()):
                    self.take_end(job, index, pod, now)
        failed = [job for job in self.jobs if job.failed]
        if failed:
            self.act_on(failed[0])
        elif self.succeeded():
            self.finish("Completed", "")
        else:
            self.create_jobs()
            for job in self.jobs:
                self.create_pods(job, now)

    def take_end(self, job: JobRun, index: int, pod: Pod, now: float) -> None:
        codes = {container.name: container.exits[-1].code for container in pod.containers if container.exits}
        if not codes:  # it was deleted before it had started: no failure, and the Job makes another
            job.active.pop(index)
            return
        end = End(codes, pod.uid in self.disrupted)
        if not pod.gone:
            pod.delete()  # its place on the network; nothing runs there any more
        action = action_on_pod(job.spec, end)
        job.active.pop(index)
        if action == SUCCEEDED:
            job.succeeded.add(index)
            job.in_a_row = 0
        else:
            job.counted += action == COUNT
            job.in_a_row += 1
            job.not_before = now + min(BACK_OFF_S * 2 ** (job.in_a_row - 1), MOST_BACK_OFF_S) * self.cluster.pace
        if action == FAIL_JOB:
            job.failed = "PodFailurePolicy"
        elif job.counted > int(job.spec.get("backoffLimit", 6)):
            job.failed = "BackoffLimitExceeded"
        self.history.append(Try(job.name, pod, end, action, job.counted))

    def act_on(self, job: JobRun) -> None:
        action = action_on_job(self.spec, job.name, job.failed)
        most = int((self.spec.get("failurePolicy") or {}).get("maxRestarts", 0))
        if action == FAIL_SET or (action == RESTART_SET and self.counted_restarts >= most):
            self.finish("Failed", f"{job.name}: {job.failed}")
            return
        self.restarts += 1
        self.counted_restarts += action == RESTART_SET
        self.delete_pods(self.pods())  # blocking: all old ones are gone before new ones come
        self.jobs = []

    def succeeded(self) -> bool:
        policy = self.spec.get("successPolicy") or {}
        wanted = policy.get("targetReplicatedJobs") or [one["name"] for one in self.spec["replicatedJobs"]]
        complete = [any(job.name == name for job in self.jobs) and all(job.complete for job in self.jobs if job.name == name)
                    for name in wanted]
        return any(complete) if policy.get("operator", "All") == "Any" else all(complete)

    def finish(self, outcome: str, why: str) -> None:
        self.delete_pods(self.pods())
        self.outcome, self.why = outcome, why
        self.over.set()

    def delete_pods(self, pods: list[Pod]) -> None:
        """Returns once they are gone, those too that somebody else has told to end."""
        threads = [threading.Thread(target=pod.delete) for pod in pods if not pod.deleted.is_set()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for pod in pods:
            pod.removed.wait()

    def create_jobs(self) -> None:
        for one in self.spec["replicatedJobs"]:
            if any(job.name == one["name"] for job in self.jobs) or not all(map(self.met, one.get("dependsOn") or [])):
                continue
            self.jobs += [JobRun(one["name"], index, one["template"]["spec"]) for index in range(one.get("replicas", 1))]

    def met(self, dependency: Object) -> bool:
        refuse_unknown("dependsOn", dependency)
        jobs = [job for job in self.jobs if job.name == dependency["name"]]
        if dependency["status"] not in ("Ready", "Complete"):
            raise Unsupported(f"dependsOn status {dependency['status']}")
        return bool(jobs) and all(job.complete or (dependency["status"] == "Ready" and job.ready) for job in jobs)

    def create_pods(self, job: JobRun, now: float) -> None:
        """The lowest indices that are neither done nor under way. A pod that is ending keeps its place until it is gone."""
        if job.complete or now < job.not_before:
            return
        for index in range(job.completions):
            if len(job.active) >= int(job.spec["parallelism"]):
                return
            if index not in job.succeeded and index not in job.active:
                pod = self.cluster.add(self.pod_of(job, index))
                job.active[index] = pod
                pod.start()

    def pod_of(self, job: JobRun, index: int) -> PodSpec:
        template = copy.deepcopy(job.spec["template"])
        metadata, name = template.get("metadata") or {}, f"{self.name}-{job.name}-{job.index}"
        labels = {**(metadata.get("labels") or {}), f"{DOMAIN}/jobset-name": self.name, f"{DOMAIN}/job-index": str(job.index),
                  f"{DOMAIN}/replicatedjob-name": job.name, "batch.kubernetes.io/job-name": name,
                  "batch.kubernetes.io/job-completion-index": str(index)}
        template["spec"]["hostname"] = f"{name}-{index}"
        service = service_of(self.thing)
        if service is not None and matches({"matchLabels": service["spec"]["selector"]}, labels):
            template["spec"]["subdomain"] = subdomain(self.thing)
        for container in template["spec"]["containers"]:
            container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "value": str(index)})
        return PodSpec(f"{name}-{index}-{self.cluster.next_number()}", self.thing["metadata"].get("namespace", "default"), labels,
                       dict(metadata.get("annotations") or {}), template["spec"], f"{title(self.thing)}/{job.name}")
