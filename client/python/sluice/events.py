"""What the coordinator tells about jobs, as plain values."""
from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Union

from sluice import errors
from sluice.v1 import job_pb2, spec_pb2


class JobState(enum.Enum):
    """States of a job; the last four are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HELD = "held"

    @property
    def terminal(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


@dataclass(frozen=True)
class JobSummary:
    job_id: str
    name: str
    kind: str  # "prepare", "sft", "rl", "evaluate"
    state: JobState
    submitted: datetime | None
    started: datetime | None
    ended: datetime | None
    step: int
    total_steps: int  # 0: not known yet
    message: str  # the outcome or the present phase
    exit_code: int | None  # None until the job has ended


@dataclass(frozen=True)
class LedgerBalance:
    """Groups by what became of them: issued is the sum of the others but `frontier`."""

    issued: int
    trained: int
    dropped: int
    failed: int
    cancelled: int
    open: int
    frontier: int


@dataclass(frozen=True)
class Member:
    """One learner rank of a running job."""

    member_id: str
    rank: int
    address: str
    phase: str
    heartbeat_age_s: float
    actors: int
    host: str = ""
    version: str = ""  # of its release; empty: it does not say


@dataclass(frozen=True)
class Cause:
    """Why a job stopped, or does not get on: the first cause of any rank or process, not the last error."""

    time: datetime
    text: str
    role: str  # "learner", "coordinator"
    rank: int  # of a learner; -1: none


@dataclass(frozen=True)
class Artifact:
    """A file of a run folder; path relative to it."""

    path: str
    bytes: int
    modified: datetime


@dataclass(frozen=True)
class PlanCheck:
    """One thing that a submission meets. result: "ok", "warning", "failed", "skipped"."""

    name: str
    result: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What a job would do and need, and whether it would be admitted; nothing was created."""

    checks: tuple[PlanCheck, ...]
    effective_yaml: str
    spec_digest: str
    counts: Mapping[str, Any]  # docs/scale.md: counts, memory of a rank and of an actor, what is not known
    estimate_s: float | None  # from a similar job that succeeded here; None: there is none
    estimate_from: str

    @property
    def ok(self) -> bool:
        return all(check.result != "failed" for check in self.checks)


@dataclass(frozen=True)
class JobDescription:
    summary: JobSummary
    spec_digest: str
    run_folder: str  # as the coordinator's machine names it
    last_checkpoint: str  # empty: none yet
    policy_version: int
    epoch: int
    ledger: LedgerBalance
    metrics: Mapping[str, float]  # the latest value of each
    results: Mapping[str, str]  # paths and texts
    members: tuple[Member, ...]
    first_cause: Cause | None = None
    forked_from: str = ""  # id of the job whose checkpoint it began with; empty: none
    wish: str = ""  # "cancel" or "pause": asked for, not done yet
    digests: Mapping[str, str] = field(default_factory=dict)
    server_version: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict, repr=False)  # effective: {"rl.gate.tau": 0.3}
    owner: str = ""  # name of the token or certificate that submitted it; empty: nobody said who


@dataclass(frozen=True)
class Outcome:
    """How a job ended. exit_code: 0 done, 1 failed, 2 spec, 3 data, 4 permission or version, 10 preempted, 11
    transient, 12 cancelled, 13 held, 14 no space."""

    job_id: str
    state: JobState
    exit_code: int
    message: str

    @property
    def ok(self) -> bool:
        return self.state is JobState.SUCCEEDED

    def check(self) -> Outcome:
        """Itself if the job ended well; the JobOutcomeError of its kind otherwise."""
        if self.ok:
            return self
        if self.exit_code == 10:
            raise errors.JobPreemptedError(self)
        kinds = {JobState.CANCELLED: errors.JobCancelledError, JobState.HELD: errors.JobHeldError}
        raise kinds.get(self.state, errors.JobFailedError)(self)


@dataclass(frozen=True)
class StateEvent:
    sequence: int
    time: datetime
    state: JobState
    message: str
    exit_code: int


@dataclass(frozen=True)
class MetricsEvent:
    sequence: int
    time: datetime
    step: int
    total_steps: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class LogEvent:
    sequence: int
    time: datetime
    level: str
    text: str
    role: str = "learner"
    rank: int = 0  # of a learner, or of the one that an actor works for; -1: none
    source: str = ""  # an actor's id
    said: datetime | None = None  # when, by an actor's clock


@dataclass(frozen=True)
class UnknownEvent:
    """An event that this package does not know: the coordinator is newer."""

    sequence: int
    time: datetime


@dataclass(frozen=True)
class GapEvent:
    """Events after `after` and before `sequence + 1` are no longer kept; none of them will come."""

    sequence: int
    after: int

    @property
    def missed(self) -> int:
        return self.sequence - self.after


Event = Union[StateEvent, MetricsEvent, LogEvent, UnknownEvent, GapEvent]


def time_of(message: Any) -> datetime:
    """A moment from the coordinator's message."""
    return datetime.fromtimestamp(message.seconds + message.nanos * 1e-9, timezone.utc)


def _state(value: int) -> JobState:
    try:
        return JobState(str(job_pb2.JobState.Name(value)).removeprefix("JOB_STATE_").lower())
    except ValueError:
        raise errors.NewerServerError(
            f"the coordinator names state {value} of a job, which this release of the package does not know; "
            "install the package of the coordinator's release") from None


def _kind(value: int) -> str:
    try:
        return str(spec_pb2.JobKind.Name(value)).removeprefix("JOB_KIND_").lower()
    except ValueError:
        return f"kind {value}"  # a newer server's; shown, not judged


def summary_of(message: Any) -> JobSummary:
    """A JobSummary from the coordinator's message."""
    def time(name: str) -> datetime | None:
        return time_of(getattr(message, name)) if message.HasField(name) else None

    state = _state(message.state)
    return JobSummary(message.job_id, message.name, _kind(message.kind), state, time("submitted"), time("started"),
                      time("ended"), message.step, message.total_steps, message.message,
                      message.exit_code if state.terminal else None)


def description_of(message: Any) -> JobDescription:
    """A JobDescription from the coordinator's message."""
    ledger = message.ledger
    return JobDescription(
        summary_of(message.summary), message.spec_digest, message.run_folder, message.last_checkpoint,
        message.policy_version, message.epoch,
        LedgerBalance(ledger.issued, ledger.trained, ledger.dropped, ledger.failed, ledger.cancelled, ledger.open,
                      ledger.frontier), dict(message.metrics), dict(message.results),
        tuple(Member(m.member_id, m.rank, m.address, m.phase, m.heartbeat_age_s, m.actors, m.host, m.version)
              for m in message.members), _cause(message), message.forked_from, message.wish, dict(message.digests),
        message.server_version, dict(_spec_values(message.spec)), message.owner)


def _spec_values(message: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What a spec says, by the paths of its keys. Enums as they are written in a spec; those that are not known as numbers."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            yield from _spec_values(value, f"{prefix}{field.name}.")
        elif field.type == field.TYPE_ENUM:
            # The value 0 is "<PREFIX>UNSPECIFIED" by the style of proto3.
            start = len(field.enum_type.values_by_number[0].name) - len("UNSPECIFIED")
            known = field.enum_type.values_by_number.get(value)
            yield f"{prefix}{field.name}", value if known is None else known.name[start:].lower()
        else:
            yield f"{prefix}{field.name}", value


def _cause(message: Any) -> Cause | None:
    if not message.HasField("first_cause"):
        return None
    event = message.first_cause
    if event.WhichOneof("event") == "log":
        return Cause(time_of(event.time), event.log.text, event.log.role or "learner", event.log.rank)
    return Cause(time_of(event.time), event.state.message, "coordinator", -1)


def artifact_of(message: Any) -> Artifact:
    """An Artifact from the coordinator's message."""
    return Artifact(message.path, message.bytes, time_of(message.modified))


def plan_of(message: Any) -> Plan:
    """A Plan from the coordinator's message."""
    names = job_pb2.PlanCheck.Result
    checks = tuple(PlanCheck(check.name, str(names.Name(check.result)).removeprefix("RESULT_").lower(), check.message)
                   for check in message.checks)
    return Plan(checks, message.effective_yaml, message.spec_digest, json.loads(message.plan_json or "{}"),
                message.estimate_s or None, message.estimate_from)


def event_of(message: Any) -> StateEvent | MetricsEvent | LogEvent | UnknownEvent:
    """An event from the coordinator's message."""
    time = time_of(message.time)
    which = message.WhichOneof("event")
    if which == "state":
        return StateEvent(message.sequence, time, _state(message.state.state), message.state.message,
                          message.state.exit_code)
    if which == "metrics":
        return MetricsEvent(message.sequence, time, message.metrics.step, message.metrics.total_steps,
                            dict(message.metrics.values))
    if which == "log":
        return LogEvent(message.sequence, time, message.log.level, message.log.text, message.log.role or "learner",
                        message.log.rank, message.log.source,
                        time_of(message.log.said) if message.log.HasField("said") else None)
    return UnknownEvent(message.sequence, time)
