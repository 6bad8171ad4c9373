"""One-shot jobs: what happens on each exit code, who must succeed, and whether the spec is where the program looks."""

from __future__ import annotations

from .facts import FINAL_CODES, IGNORED_CODES, exit_codes
from .objects import JOB_SETS, Cluster, Findings, Object, Pod, job_set_spec, labels, rule, title
from .program import is_run


STEP = "trainer.kubeflow.org/trainjob-ancestor-step"
SUCCESSORS = 100  # completions of a helper's Job for each pod: more than a job will see drains


def exit_rules(pod: Pod, action: str) -> list[Object]:
    rules = ((pod.job or {}).get("podFailurePolicy") or {}).get("rules") or []
    return [entry["onExitCodes"] for entry in rules if entry.get("action") == action and "onExitCodes" in entry]


@rule("job-exit-codes")
def job_exit_codes(cluster: Cluster) -> Findings:
    """A learner that was preempted is tried again uncounted, one that cannot get better is not; all others count."""
    for pod, container in cluster.containers():
        if pod.job is None or not is_run(container):
            continue
        for action, wanted in (("Ignore", IGNORED_CODES), ("FailJob", FINAL_CODES)):
            codes = sorted(code for entry in exit_rules(pod, action) if entry.get("operator") == "In"
                           for code in entry["values"])
            if codes != sorted(wanted):
                yield pod.title, f"{action} on {codes}, want {sorted(wanted)} (docs/reference/processes.md)"
            for entry in exit_rules(pod, action):
                if entry.get("containerName") not in (None, container.name):
                    yield pod.title, f"an exit code of container {entry['containerName']}, which is not there"
                if not set(entry["values"]) <= exit_codes():
                    yield pod.title, f"codes that no process ends with: {sorted(set(entry['values']) - exit_codes())}"


@rule("job-evictions-free")
def job_evictions_free(cluster: Cluster) -> Findings:
    """An eviction is nobody's failure: the first rule ignores it."""
    for pod in cluster.pods:
        if pod.job is None:
            continue
        rules = (pod.job.get("podFailurePolicy") or {}).get("rules") or [{}]
        if rules[0].get("action") != "Ignore" or [one.get("type") for one in rules[0].get("onPodConditions") or []] != [
                "DisruptionTarget"]:
            yield pod.title, "want Ignore on DisruptionTarget as the first rule of podFailurePolicy"


@rule("job-restarts")
def job_restarts(cluster: Cluster) -> Findings:
    """Pods of jobs are made anew, never restarted in place: only so do exit codes count. Tries have an end. A drained helper,
    which ends with 0 and so completes an index, has successors; the learner has one index and so one name."""
    for pod in cluster.pods:
        if pod.job is None:
            continue
        if pod.spec.get("restartPolicy") != "Never":
            yield pod.title, f"restartPolicy {pod.spec.get('restartPolicy')}: podFailurePolicy needs Never"
        if not 1 <= pod.job.get("backoffLimit", 6) <= 1000:
            yield pod.title, f"backoffLimit {pod.job.get('backoffLimit')}: want 1 to 1000"
        completions, pods = pod.job.get("completions") or 1, pod.job.get("parallelism") or 1
        if pod.job.get("completionMode") != "Indexed":
            yield pod.title, "want completionMode Indexed: names come from the index"
        elif any(map(is_run, pod.containers)):
            if completions != 1 or pods != 1:
                yield pod.title, "want one completion and one pod: actors go by the name of index 0"
        elif pod.owner["kind"] == "TrainingRuntime":
            if completions != pods:
                yield pod.title, f"{completions} completions of {pods} pods: Trainer makes both the same"
        elif completions < SUCCESSORS * pods:
            yield pod.title, f"{completions} completions of {pods} pods: one that is drained ends with 0 and would have no successor"


@rule("jobset-names")
def jobset_names(cluster: Cluster) -> Findings:
    """Policies and dependencies name jobs of the set, dependencies earlier ones."""
    for thing in cluster.kind(*JOB_SETS):
        spec = job_set_spec(thing)
        names = [job["name"] for job in spec["replicatedJobs"]]
        targets = list((spec.get("successPolicy") or {}).get("targetReplicatedJobs") or [])
        for entry in (spec.get("failurePolicy") or {}).get("rules") or []:
            targets += entry.get("targetReplicatedJobs") or []
        for name in targets:
            if name not in names:
                yield title(thing), f"a policy names the job {name}, which is not there"
        for position, job in enumerate(spec["replicatedJobs"]):
            for entry in job.get("dependsOn") or []:
                if entry["name"] not in names[:position]:
                    yield title(thing), f"{job['name']} depends on {entry['name']}, which is not before it"


@rule("jobset-outcome")
def jobset_outcome(cluster: Cluster) -> Findings:
    """The set succeeds and fails with its learner, helpers alone never end it, and old pods go before new ones come."""
    for thing in cluster.kind(*JOB_SETS):
        learners = [pod.title.rpartition("/")[2] for pod in cluster.pods
                    if pod.owner is thing and any(map(is_run, pod.containers))]
        spec = job_set_spec(thing)
        success = (spec.get("successPolicy") or {}).get("targetReplicatedJobs")
        if len(learners) != 1 or success != learners:
            yield title(thing), f"succeeds with {success}, want {learners}"
        failure = spec.get("failurePolicy") or {}
        first = (failure.get("rules") or [{}])[0]
        if (first.get("action"), first.get("targetReplicatedJobs")) != ("FailJobSet", learners):
            yield title(thing), f"want FailJobSet for {learners} as the first rule: its Job has had all its tries"
        if failure.get("restartStrategy") != "BlockingRecreate":
            yield title(thing), "want restartStrategy BlockingRecreate: a run folder has one learner at a time"
        if not (spec.get("network") or {}).get("enableDNSHostnames"):
            yield title(thing), "want enableDNSHostnames: actors go by names"


@rule("job-spec-there")
def job_spec_there(cluster: Cluster) -> Findings:
    """The spec that the command line names is a key of a ConfigMap that is mounted there; a TrainJob's lies on a claim."""
    for pod, container in cluster.containers():
        if not is_run(container) or len(container.words) < 2:
            continue
        path = container.words[1]
        if pod.owner["kind"] == "TrainingRuntime":
            path = next((str(entry.get("value", "")) for entry in container.env if path == f"$({entry['name']})"), path)
            mount = container.mount_of(path)
            if not mount or "persistentVolumeClaim" not in (pod.volumes.get(mount["name"]) or {}):
                yield pod.title, f"{path} lies on no claim"
            continue
        mount = container.mount_of(path)
        source = (pod.volumes.get(mount["name"]) or {}).get("configMap") if mount else None
        found = cluster.named("ConfigMap", source["name"]) if source else None
        key = path.removeprefix(mount["mountPath"]).lstrip("/") if mount else ""
        if found is None or key not in (found.get("data") or {}):
            yield pod.title, f"there is no {path}"


@rule("queue-starts-job")
def queue_starts_job(cluster: Cluster) -> Findings:
    """A job with a queue waits for it, the queue is there; one without starts by itself."""
    for thing in cluster.kind("JobSet"):
        queue = labels(thing).get("kueue.x-k8s.io/queue-name")
        if queue is not None and cluster.named("LocalQueue", queue) is None:
            yield title(thing), f"there is no LocalQueue {queue}"
        if (queue is not None) != bool(thing["spec"].get("suspend")):
            yield title(thing), f"queue {queue}, suspend {thing['spec'].get('suspend')}"


@rule("trainer-step")
def trainer_step(cluster: Cluster) -> Findings:
    """A TrainJob's settings are for the learner: its Job carries Trainer's label, once, its container is called node, and it
    is one."""
    for thing in cluster.kind("TrainingRuntime"):
        jobs = job_set_spec(thing).get("replicatedJobs") or []
        marked = [job for job in jobs if ((job["template"].get("metadata") or {}).get("labels") or {}).get(STEP) == "trainer"]
        learners = [pod.title.rpartition("/")[2] for pod in cluster.pods if pod.owner is thing and any(map(is_run, pod.containers))]
        if [job.get("name") for job in marked] != learners:
            yield title(thing), f"want {STEP}: trainer on {learners}, found it on {[job.get('name') for job in marked]}"
        if (thing["spec"].get("mlPolicy") or {}).get("numNodes", 1) != 1 or any(job.get("replicas", 1) != 1 for job in jobs):
            yield title(thing), "want one node and one replica of each job: a run folder has one learner"
