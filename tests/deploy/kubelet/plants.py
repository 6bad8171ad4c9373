"""Bugs planted into a copy of the manifests, each with the finding that must name it. Only the pods concerned are run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from .cluster import Finding
from .manifests import Object
from .probes import TOP

sys.path.insert(0, os.path.join(TOP, "tests", "deploy"))
from kubernetes_bugs import JOB, JOB_RANK, Edit, cut, found, put  # noqa: E402  # its folder is known from here on

COORDINATOR, RANK = "StatefulSet/sluice-coordinator", "StatefulSet/sluice-rank"
POD, CONTAINER = "/spec/template/spec", "/spec/template/spec/containers/0"
JOB_ACTORS = 2  # of a JobSet that is run with a bug; it declares more than a small machine has cores for
BUDGET = 8  # tries of a startup probe that are enough where it must fail


def both(*edits: Edit) -> Edit:
    def edit(things: list[Object]) -> None:
        for one in edits:
            one(things)
    return edit


def without_mount(title: str, path: str) -> Edit:
    def edit(things: list[Object]) -> None:
        container = found(things, title)["spec"]["template"]["spec"]["containers"][0]
        container["volumeMounts"] = [entry for entry in container["volumeMounts"] if entry["mountPath"] != path]
    return edit


def shut(policy: str, side: str, port: int) -> Edit:
    """Takes an edge away at one end."""
    def edit(things: list[Object]) -> None:
        spec = found(things, policy)["spec"]
        kept = [entry for entry in spec[side] if all(one["port"] != port for one in entry["ports"])]
        assert len(kept) == len(spec[side]) - 1
        spec[side] = kept
    return edit


@dataclass(frozen=True)
class Plant:
    name: str
    says: str  # the bug
    edit: Edit
    owners: tuple[str, ...]  # whose pods are run
    finding: str
    where: str  # part of the finding's place
    what: str  # part of its text
    in_test: bool = False  # deploy.kubelet plants it too
    part: str = ""  # what of job_scenario.py is run, with the JobSet in place of owners

    def is_named(self, findings: Iterable[Finding]) -> bool:
        return any(one.name == self.finding and self.where in one.where and self.what in one.what for one in findings)


PLANTS = (
    Plant("probe-port", "a startup probe asks another port than the process listens at",
          both(put(COORDINATOR, f"{CONTAINER}/startupProbe/grpc/port", 7079),
               put(COORDINATOR, f"{CONTAINER}/startupProbe/failureThreshold", BUDGET)),
          (COORDINATOR,), "probe-failed", "sluice-coordinator-0", "startup grpc :7079", in_test=True),
    Plant("no-state", "the folder of the job store is not mounted, and the root is read-only",
          without_mount(COORDINATOR, "/var/lib/sluice"), (COORDINATOR,), "exited", "sluice-coordinator-0", "/var/lib/sluice", in_test=True),
    Plant("no-group", "the volume belongs to no group of the process's user",
          cut(COORDINATOR, f"{POD}/securityContext/fsGroup"), (COORDINATOR,), "exited", "sluice-coordinator-0",
          "Permission denied", in_test=True),
    Plant("root", "runAsNonRoot, and user 0", put(COORDINATOR, f"{POD}/securityContext/runAsUser", 0), (COORDINATOR,),
          "config-error", "sluice-coordinator-0", "root", in_test=True),
    Plant("other-role", "the certificate of another role",
          put(COORDINATOR, f"{POD}/volumes/3/secret/secretName", "sluice-rank-tls"), (COORDINATOR,), "exited",
          "sluice-coordinator-0", "needs one with", in_test=True),
    Plant("no-certificate", "a Secret that nobody has filled",
          put(COORDINATOR, f"{POD}/volumes/3/secret/secretName", "sluice-coordinators-tls"), (COORDINATOR,), "config-error",
          "sluice-coordinator-0", "sluice-coordinators-tls", in_test=True),
    Plant("no-env", "a variable of the command line is not declared", cut(RANK, f"{CONTAINER}/env"), (RANK,),
          "env-unresolved", "sluice-rank-0", "$(POD_IP)", in_test=True),
    Plant("no-claim", "a volume of a claim that is not there",
          put(RANK, f"{POD}/volumes/0/persistentVolumeClaim/claimName", "sluice-share"), (RANK,), "config-error",
          "sluice-rank-0", "sluice-share", in_test=True),
    Plant("no-program", "a program that the image does not have", put(RANK, f"{CONTAINER}/command/0", "sluice-ranker"),
          (RANK,), "exited", "sluice-rank-0", "could not start", in_test=True),
    Plant("memory", "a memory limit below what the process needs at its start",
          put(COORDINATOR, f"{CONTAINER}/resources/limits/memory", "16Mi"), (COORDINATOR,), "memory",
          "sluice-coordinator-0", "killed at its limit"),
    Plant("no-egress", "the policy of the ranks lacks their edge to the coordinator",
          shut("NetworkPolicy/sluice-rank", "egress", 7070), (COORDINATOR, RANK), "edge-refused",
          "rank -> coordinator at 7070", "by the egress policies of sluice-rank-0", in_test=True),
    Plant("no-ingress", "the policy of the coordinator does not let the ranks in",
          cut("NetworkPolicy/sluice-coordinator", "/spec/ingress/0/from/0"), (COORDINATOR, RANK), "edge-refused",
          "rank -> coordinator at 7070", "by the ingress policies of sluice-coordinator-0"),
    Plant("open-policy", "a policy lets everybody of the namespace in",
          put("NetworkPolicy/sluice-coordinator", "/spec/ingress/0/from/0", {"podSelector": {}}), (COORDINATOR,),
          "edge-open", "neighbour -> coordinator at 7070", "nothing allows it", in_test=True),
    Plant("service-port", "a Service leads to a port name that no container has",
          put("Service/sluice-coordinator", "/spec/ports/0/targetPort", "rpc"), (COORDINATOR,), "service-empty",
          "sluice/sluice-coordinator", "7070"),
    Plant("service-selector", "a Service selects pods that are not there",
          put("Service/sluice-coordinator", "/spec/selector/app.kubernetes.io~1component", "coordinators"), (COORDINATOR,),
          "service-empty", "sluice/sluice-coordinator", "7070"),
    Plant("silent-port", "a metrics port is declared, and the process is not told to serve it",
          cut(COORDINATOR, f"{CONTAINER}/args/3"), (COORDINATOR,), "port-silent", "sluice-coordinator-0", "7071"),
    Plant("job-preemption", "a JobSet's rules count a preemption after a clean checkpoint as a failure",
          cut(JOB, f"{JOB_RANK}/podFailurePolicy/rules/1"), (), "job-rule", "sluice-job-rank-0-0", "exit code 10: Count, want Ignore",
          part="disturbed"),
    Plant("job-bad-spec", "a JobSet's rules try a bad spec again", put(
        JOB, f"{JOB_RANK}/podFailurePolicy/rules/2/onExitCodes/values", [1, 3, 4, 12, 13, 14]), (), "job-rule",
        "sluice-job-rank-0-0", "exit code 2: Count, want FailJob", in_test=True, part="bad_spec"),
    Plant("job-one-try", "a JobSet's learner that was killed has no other try", put(JOB, f"{JOB_RANK}/backoffLimit", 0), (),
          "jobset-outcome", "sluice-job", "BackoffLimitExceeded", part="disturbed"),
    Plant("job-grace", "a one-shot learner's grace period is shorter than its drain",
          put(JOB, f"{JOB_RANK}/template/spec/terminationGracePeriodSeconds", 0), (), "drain-overrun", "sluice-job-rank-0-0",
          "grace of 0 s", part="disturbed"),
    Plant("job-no-successor", "a JobSet's actors have as many completions as pods",
          put(JOB, "/spec/replicatedJobs/2/template/spec/completions", JOB_ACTORS), (), "not-replaced", "sluice-job-actor-0-",
          f"{JOB_ACTORS} completions", part="disturbed"),
)
BY_NAME = {plant.name: plant for plant in PLANTS}
