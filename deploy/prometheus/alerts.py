#!/usr/bin/env python3
"""The alerts of Sluice, their recording rules and their runbooks: one table, from which all files are written.

    python3 deploy/prometheus/alerts.py            writes deploy/prometheus/rules.yml, the same as an object of the
                                                   Prometheus operator, and docs/runbooks/
    python3 deploy/prometheus/alerts.py --check    only says what is out of date, and ends with 1 if anything is

Python's standard library alone. Edit this file, never what it writes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import written_files  # noqa: E402  # its folder is known from here on

TOP = written_files.TOP
PAGE, TICKET = "page", "ticket"  # wake somebody; look at it in working hours


# Only interrupted jobs resume by themselves.
AFTER_THE_END = ("`sluicectl resume JOB` takes a job that failed, was held or cancelled up again from its last checkpoint; "
                 "a one-shot job (`sluice-learner run`) resumes with the same `--run-folder`.")


@dataclass(frozen=True)
class Record:
    """A recording rule: what several panels or alerts ask for."""
    name: str
    expr: str


@dataclass(frozen=True)
class Alert:
    """An alert and its runbook. Descriptions say what to do; the only template in texts is {{ $labels.NAME }}."""
    name: str
    severity: str
    hold: str  # Prometheus' `for`
    expr: str
    summary: str
    description: str
    means: str
    look: tuple[str, ...]
    mend: tuple[str, ...]


RECORDS = (
    Record("sluice:step_wait:ratio_5m",
           'sum without (part) (rate(sluice_step_duration_seconds_sum{part="wait"}[5m]))'
           " / sum without (part) (rate(sluice_step_duration_seconds_sum[5m]))"),
    Record("sluice:actor_busy:ratio_5m", "avg by (job) (rate(sluice_actor_busy_seconds_total[5m]))"),
    Record("sluice:reward_request_duration_seconds:p95_5m",
           "histogram_quantile(0.95, sum by (job, le) (rate(sluice_reward_request_duration_seconds_bucket[5m])))"),
    Record("sluice:reward_requests_refused:ratio_5m",
           'sum by (job) (rate(sluice_reward_requests_total{code="RESOURCE_EXHAUSTED"}[5m]))'
           " / sum by (job) (rate(sluice_reward_requests_total[5m]))"),
    Record("sluice:deliveries_stale:ratio_5m",
           'sum by (job) (rate(sluice_deliveries_total{outcome="stale_version"}[5m]))'
           " / sum by (job) (rate(sluice_deliveries_total[5m]))"),
    Record("sluice:groups_trained:rate_5m", 'sum by (job) (rate(sluice_groups_total{state="trained"}[5m]))'),
)

ALERTS = (
    Alert("RunStalled", PAGE, "1m",
          "time() - sluice_job_last_progress_timestamp_seconds > 900 and sluice_job_running == 1",
          "The job on {{ $labels.instance }} has made no progress for 15 minutes",
          "Ask `sluicectl describe` for the phase. Waiting for groups: look at actors and reward server. Any other phase: "
          "look at the log of every rank, then restart the rank that hangs; the job goes on from its checkpoint.",
          "No step, no block of an evaluation, no checkpoint and no new phase came from a job that is said to run. A phase "
          "that only goes on is no progress.",
          ("`sluicectl describe JOB`: the phase, the epoch and the members.",
           "Phase `waiting for groups`: is ActorsMissing, RewardUnavailable or ScrapeMissing firing too? Dashboard *Pipeline*, "
           "row *From lease to step*.",
           "Phase `training` or `validation`: `sluicectl logs JOB --follow`, and the CPU of each rank on *Service health*. A "
           "rank at 0 % waits for a peer; the one that answers nothing is the one that hangs."),
          ("Waiting for groups: start actors, or mend the reward server. The job goes on by itself.",
           "A rank that hangs: SIGTERM, after its grace period SIGKILL. The lease ends, the coordinator makes a new epoch, "
           "the job resumes from the last checkpoint.",
           "A time that is right for your model and longer than 15 minutes: raise the threshold in "
           "`deploy/prometheus/alerts.py`.")),
    Alert("LearnerGroupNotFormed", PAGE, "5m",
          "sum without (state) (sluice_coordinator_jobs) > 0 and sluice_coordinator_epoch == 0",
          "There are jobs and no learner group works on them",
          "Compare the ranks that the coordinator knows with its --ranks. Start the missing ranks, or restart the coordinator "
          "with fewer.",
          "The coordinator forms a group when as many ranks as `--ranks` says keep their lease. It does not have them.",
          ("`sluicectl list`, and `sluice_coordinator_members` on the dashboard *Fleet*.",
           "The coordinator's log: `member joined`, `member left` and `group lost`, with their reasons.",
           "The log of a rank that runs and is not among the members: the address that it tries."),
          ("Start the missing ranks; they join by themselves.",
           "Fewer machines than before: restart the coordinator with another `--ranks`. Jobs are kept.")),
    Alert("ActorsMissing", PAGE, "5m",
          'sluice_lease_blocks_waiting > 0 and on (job, instance) sluice_actors{state="attached"} == 0',
          "Blocks wait on {{ $labels.instance }} and no actor is attached",
          "Start actors, or read the log of those that run: they name what they cannot reach.",
          "Groups are issued, but nobody takes leases. The job gives up after ten minutes without any result.",
          ("`sluice_actor_attached` of each actor: 0 means it runs but finds no rank.",
           "The actor's log: the address that it tried, and why it failed."),
          ("Start actors with `--coordinator` (or `--learner` for a one-shot job) and `--reward`.",
           "An actor that is refused by its version: give it the release of the learner.")),
    Alert("LearnerStarved", TICKET, "15m",
          "sluice:step_wait:ratio_5m > 0.5 and on (job, instance) sluice_job_running == 1",
          "The learner on {{ $labels.instance }} waits more than half of its time for groups",
          "Add actors, or find out what slows them: reward server (RewardSlow) or decoding.",
          "Of the time of a step, more than half is the wait for scored groups.",
          ("Dashboard *Pipeline*: busy share of actors. Near 1: they are too few. Low: they wait for scores, weights or "
           "leases.",
           "`sluice_credits_available` above 0 with blocks waiting at 0: the staleness bound holds actors back."),
          ("Actors busy: start more. docs/scale.md says how many bring how much.",
           "Actors idle for the staleness bound: raise `rl.staleness`, or accept the wait: it is the price of fresh data.",
           "Actors idle for scores: see RewardSlow.")),
    Alert("ActorsUnderused", TICKET, "30m",
          "sluice:actor_busy:ratio_5m < 0.2 and on (job) sluice:groups_trained:rate_5m > 0",
          "Actors of {{ $labels.job }} work less than a fifth of their time",
          "Stop some actors: the learner is the bottleneck and they cost money without effect.",
          "A job trains, and its actors execute leases for less than 20 % of the time.",
          ("Dashboard *Learners*: the share of the wait in a step. Near 0: the learner is the bottleneck.",
           "Dashboard *Pipeline*: time of weight updates. An actor that loads weights most of the time is not busy either."),
          ("Stop actors by SIGTERM: they finish or return their leases.",
           "Or give the learner more: ranks, threads, a larger staleness.")),
    Alert("RewardUnavailable", PAGE, "2m",
          'sluice_gate_reason_ratio{reason="reward_unavailable"} > 0.05 and on (job, instance) sluice_job_running == 1',
          "Groups of {{ $labels.instance }} train without rewards: the reward server does not answer",
          "Restart or reach the reward server. Until then these groups train on logged truth alone, and after "
          "rl.operational_steps steps the job does what rl.on_reward_outage says.",
          "More than 5 % of the last step's groups had no scores because calls failed, ran past their deadline, or were answered "
          "by a ranker that is not to be believed. They were tried again for `rl.reward.park_s`. No score is made up: the gate "
          "closed for them.",
          ("`sluicectl describe JOB`: the rank's phase says DEGRADED with the state and its cause; `sluicectl logs JOB` has each move.",
           "The cause names a canary or a ranker version: the server answers, with another model or in another order.",
           "Is ScrapeMissing firing for role `reward`? Then it is down.",
           "The actor's log and `sluicectl logs JOB`: the sentence after `scores:` says how calls fail.",
           "Dashboard *Reward server*: time of calls against `rl.reward.deadline_s`."),
          ("Start the reward server again at its address; actors find it by themselves, and the job probes within "
           "`rl.reward.health.probe_max_s`.",
           "A new ranker on purpose: resume the job, or give it `on_new_version: follow`.",
           "It lives and is too slow: see RewardSlow.",
           "The job was held meanwhile (exit code 13): " + AFTER_THE_END)),
    Alert("RewardInvalidScores", PAGE, "1m",
          'sum by (job) (rate(sluice_reward_groups_total{outcome=~"not_finite|failed"}[5m])) > 0'
          ' or sum by (job) (rate(sluice_reward_status_total{status="invalid"}[5m])) > 0',
          "The ranker of {{ $labels.job }} gives scores that are no numbers",
          "See on the dashboard Reward server which outcome grows, and mend the ranker or go back to its last good version. "
          "The groups concerned train on logged truth alone.",
          "Scores were NaN, infinite, of the wrong number, or the ranker failed. They are refused and never become 0.",
          ("Dashboard *Reward server*: `not_finite` is the ranker's arithmetic, `failed` an error of the ranker itself.",
           "`sluicectl logs JOB`: the sentence after `scores:` quotes the last failure of a step that lost its scores."),
          ("Go back to the ranker's last good version.",
           "Restart the reward server; the job goes on.")),
    Alert("RewardRejected", TICKET, "2m",
          'sum by (job) (rate(sluice_reward_status_total{status="rejected"}[5m])) > 0',
          "The reward server refuses calls of {{ $labels.job }}",
          "Start reward server and job on the same data set and name a ranker that it has.",
          "Calls come with another catalog, an unknown ranker, or malformed: retrying does not help.",
          ("`sluicectl logs JOB`: the sentence after `scores:` names what was wanted and what came.",),
          ("Same `--data` for reward server and job.", "`rl.reward.ranker` names one of the server's log lines `ranker ready`.")),
    Alert("RewardSlow", TICKET, "10m",
          "sluice:reward_request_duration_seconds:p95_5m > 1",
          "5 % of the Score calls of {{ $labels.job }} take longer than a second",
          "Look at queue delay and batch time on the dashboard Reward server: queue long, add a server; batch long, the "
          "ranker itself is slow.",
          "The 95th percentile of a Score call in the server is above one second.",
          ("Dashboard *Reward server*: queue delay against time of a batch, and the size of batches.",
           "CPU of the server on *Service health*."),
          ("Queue delay dominates: more servers, or more threads.",
           "Batch time dominates: smaller batches, or a cheaper ranker.",
           "Calls run past `rl.reward.deadline_s`: raise it for as long as it takes.")),
    Alert("RewardOverloaded", TICKET, "10m",
          "sluice:reward_requests_refused:ratio_5m > 0.05",
          "The reward server of {{ $labels.job }} refuses more than 5 % of its calls for lack of room",
          "Add reward servers or stop actors. Clients back off and try again, so nothing is lost but time.",
          "The queue is full, and calls are answered with RESOURCE_EXHAUSTED and a time to wait.",
          ("Dashboard *Reward server*: queued groups and queue delay.",),
          ("Another reward server, or fewer actors.", "A larger queue only helps against short bursts.")),
    Alert("StalenessBudgetExceeded", TICKET, "10m",
          "sluice:deliveries_stale:ratio_5m > 0.05",
          "More than 5 % of the results of {{ $labels.job }} come with weights that are too old",
          "Find the slow actors, or raise rl.staleness: their work is refused and done again.",
          "Results are refused because the policy version behind them is older than the bound allows.",
          ("Dashboard *Pipeline*: version lag of actors, and time of weight updates.",
           "Time of a lease block against the time of a step: a lease that lasts many steps comes too late."),
          ("Smaller leases (`rl.lease_groups`), or faster actors.", "A larger `rl.staleness`, if the method stands it.")),
    Alert("PolicyVersionWentBackwards", PAGE, "0s",
          "sluice_published_policy_version > 0"
          " and sluice_published_policy_version < sluice_published_policy_version offset 1m"
          " and on (job, instance) sluice_job_start_timestamp_seconds == sluice_job_start_timestamp_seconds offset 1m"
          " and on (job, instance) sluice_job_running == 1",
          "The published policy version on {{ $labels.instance }} fell within one run of a job",
          "Cancel the job and keep its run folder and logs: versions must only rise, so this is a fault of Sluice.",
          "A version number is reserved durably before weights leave the rank. It can only rise.",
          ("`sluicectl logs JOB`: versions as they were published.",
           "Was the job store or `policy_version` in the run folder restored from a backup while the job ran?"),
          ("Cancel, and restore nothing under a running job. " + AFTER_THE_END, "Report it with the logs.")),
    Alert("LedgerImbalance", PAGE, "0s",
          "sluice_ledger_imbalance != 0",
          "The books of {{ $labels.instance }} do not add up: a group is lost or counted twice",
          "Cancel the job and keep its run folder: issued = trained + dropped + failed + cancelled + open no longer holds.",
          "Every ordinal ends in exactly one state. The sum over the states differs from what was issued.",
          ("Panel *Ledger imbalance* on *Run overview*: since when.",
           "Logs of that time: epochs, restarts, expired leases."),
          ("Cancel the job; checkpoints written before are sound, as they check the same sum. " + AFTER_THE_END,
           "Report it with run folder and logs.")),
    Alert("GroupsLost", TICKET, "0s",
          'increase(sluice_groups_total{state=~"dropped|failed"}[10m]) > 0',
          "Groups on {{ $labels.instance }} ended {{ $labels.state }}",
          "Check the data set: actors could not make sense of these prompts. They are in the books, but not trained.",
          "`failed`: an actor refused the group's data, so that no other try can help. `dropped`: given up with a reason. Groups "
          "that only ran out of tries are not among them: those train on logged truth alone (gate reason `unsampled`).",
          ("The actor's log at that time: `a lease failed` and `this actor cannot work on the job` quote the error.",
           "Do actors and learner work on the same catalog? An upgrade in between shows in VersionSkew."),
          ("Prepare the data set again, or bring actors to the learner's release.",)),
    Alert("GroupsUnsampled", TICKET, "10m",
          'sluice_gate_reason_ratio{reason=~"unsampled|stale|catalog_changed"} > 0.05'
          " and on (job, instance) sluice_job_running == 1",
          "More than 5 % of the groups of {{ $labels.instance }} train without reward, for the reason {{ $labels.reason }}",
          "Mend what the reason names: actors that fail (unsampled), actors that are too slow (stale), or a catalog that is not "
          "the job's (catalog_changed). Logged truth alone trains these groups.",
          "The gate closed for an operational reason, not for one of the method. `unsampled`: no group after "
          "`rl.max_attempts` leases. `stale`: sampled with weights that are too old. `catalog_changed`: another catalog.",
          ("Dashboard *Run overview*: gate by reason, since when.",
           "Logs of actors: `a lease failed`, `not attached to a learner rank`."),
          ("unsampled: restart or replace the actors that fail; see LeasesExpire.", "stale: see StalenessBudgetExceeded.",
           "catalog_changed: one data set for job, actors and reward server.")),
    Alert("LeasesExpire", TICKET, "0s",
          "increase(sluice_lease_expired_total[10m]) > 3",
          "Leases of {{ $labels.instance }} run past their deadline",
          "Look for actors that died or hang. Slow actors need smaller leases or a longer rl.lease_deadline_s.",
          "Their groups are issued again, so nothing is lost but the time.",
          ("Dashboard *Pipeline*: time of a lease block, against `rl.lease_deadline_s`.",
           "Which actors restarted (RestartLoop, ScrapeMissing)?"),
          ("Restart what hangs.", "`rl.lease_groups` smaller or `rl.lease_deadline_s` longer.")),
    Alert("WeightsCorrupted", TICKET, "0s",
          "increase(sluice_weight_checksum_mismatch_total[15m]) > 0",
          "Weights arrived damaged at {{ $labels.instance }}",
          "They were refused and fetched again. If it repeats, check the memory and the network of that machine.",
          "A chunk's checksum differed from the one announced.",
          ("One instance, or all? All: the learner's machine.",),
          ("Take the machine out of service and test its memory.",)),
    Alert("WeightGroupPaused", TICKET, "0s",
          "max_over_time(sluice_publish_group_paused[15m]) == 1 and on (job, instance) sluice_job_running == 1",
          "{{ $labels.instance }} broadcasts no new versions to its actors for a while",
          "Find the actor that the broadcasts fail at; until then every actor fetches, which is slower and changes no result.",
          "With `--weights gloo` or `nccl`, three broadcasts in a row failed, so the rank broadcasts nothing for five minutes and "
          "then tries again. It clears fifteen minutes after the last pause.",
          ("The rank's log: `a broadcast of weights failed`, with its error, three times before `broadcasts of weights fail`.",
           "Dashboard *Pipeline*: *Publications that went astray*, `group_failed` against `group_late`.",
           "Logs of the actors at that time: `weights did not come by the broadcast`. May they and the rank reach one another at the ports that the kernel picks? "
           "docs/kubernetes.md, section *Who may talk to whom*."),
          ("Restart or take away the actor that is always among those that fail.",
           "A network that lets no such connections through: open it, or give ranks and actors `--weights grpc`.")),
    Alert("AdvantagesVanished", TICKET, "30m",
          "sluice_zero_advantage_groups_ratio > 0.95 and on (job, instance) sluice_job_running == 1",
          "Nearly all groups of {{ $labels.instance }} have equal rewards and teach nothing",
          "Look at reward mean and diversity: a constant ranker, or a policy that has collapsed. Then cancel, and change the "
          "reward or the sampler.",
          "Advantages are relative to the group; equal rewards make all of them zero.",
          ("Dashboard *Run overview*: reward mean, diversity, hit rate of the last validations.",
           "A ranker that answers a constant: score two different items by hand."),
          ("Mend the ranker, or choose a graded reward.", "A higher temperature or larger groups.")),
    Alert("DiversityCollapse", TICKET, "30m",
          "sluice_group_diversity_ratio < 0.1 and on (job, instance) sluice_job_running == 1",
          "The policy on {{ $labels.instance }} repeats itself: under 10 % of a group's completions are distinct",
          "Cancel the job, go back to an earlier checkpoint, and train with a KL to the reference or a lower learning rate.",
          "Exploration is gone; reward can only fall from here or stay.",
          ("Dashboard *Run overview*: KL, gradient norm, validation hit rate.",),
          ("Lower `rl.optimizer.learning_rate`, add a KL, raise the temperature; start from the best export.",)),
    Alert("KlRunaway", TICKET, "10m",
          "sluice_kl_mean_nats > 1 and on (job, instance) sluice_job_running == 1",
          "The policy on {{ $labels.instance }} runs away from its reference",
          "Compare validation with its best value. If it falls, cancel and train with a larger KL weight or a lower rate.",
          "The mean KL per token is above one nat.",
          ("Dashboard *Run overview*: KL, validation, hallucination.",),
          ("A larger weight of the KL, a lower learning rate; start from the best export.",)),
    Alert("CheckpointOverdue", TICKET, "5m",
          "(sluice_job_running == 1 and time() - sluice_job_start_timestamp_seconds > 3600"
          " and increase(sluice_steps_total[1h]) > 0)"
          " unless time() - sluice_checkpoint_last_success_timestamp_seconds < 3600",
          "The job on {{ $labels.instance }} has not written a checkpoint for an hour",
          "Lower checkpoint.every, so that a fault costs less than an hour of work.",
          "A job trains for more than an hour, and its last whole checkpoint is older than that, or there is none.",
          ("`checkpoint.every` of the spec times the time of a step (*Learners*).",),
          ("Cancel, and submit it again with a smaller `checkpoint.every` and the old one's `export/best` as `model.path`: a "
           "job goes on with the spec that it began with.",)),
    Alert("JobEndedBadly", PAGE, "0s",
          'increase(sluice_jobs_ended_total{outcome=~"failed|held|no_space"}[10m]) > 0',
          "A job on {{ $labels.instance }} ended as {{ $labels.outcome }}",
          "Read the cause in `sluicectl describe JOB`. failed: mend the cause. held: a person must "
          "decide. no_space: make room. The runbook says how to go on.",
          "Outcomes: `failed` (data, spec, our own faults, numbers that are not finite), `held` (a budget of the spec is "
          "spent), `no_space` (the checkpoint or run folder could not be written).",
          ("`sluicectl list`, `sluicectl describe JOB`: the first cause, and what to do.",
           "`no_space`: `df` of the run folder's volume."),
          ("Mend the cause. " + AFTER_THE_END,
           "A loss or gradient that is not finite: an earlier checkpoint and a lower learning rate.")),
    Alert("GroupKeepsBreaking", TICKET, "0s",
          'increase(sluice_jobs_ended_total{outcome="broken"}[30m]) > 3',
          "The learner group of {{ $labels.instance }} has broken more than three times in half an hour",
          "Find the rank that dies or that the others cannot reach; each break costs the steps since the last checkpoint.",
          "A peer vanished or a collective failed; the group forms again and the job resumes.",
          ("Logs of all ranks at the times of the breaks: who said what first.",
           "RestartLoop for role `rank`; memory of the ranks on *Service health*."),
          ("Take the machine out that is always the first.", "Out of memory: fewer groups a step, or more memory.")),
    Alert("RestartLoop", TICKET, "0s",
          "changes(process_start_time_seconds[30m]) > 3 and on (job, instance) sluice_build_info",
          "{{ $labels.instance }} has started more than three times in half an hour",
          "Read the last lines of its log before each end, and its exit code (docs/operations.md).",
          "The process ends and is started again, over and over.",
          ("Exit code and last log line.", "Killed without a line: out of memory; see its memory on *Service health*."),
          ("Mend what the line says.", "Raise the memory limit, or make the job smaller.")),
    Alert("VersionSkew", TICKET, "15m",
          "count by (job) (count by (job, version) (sluice_build_info)) > 1",
          "Processes of {{ $labels.job }} are of different releases",
          "Finish the upgrade, or go back: bring all processes to one release.",
          "A rolling upgrade takes minutes; this one has lasted a quarter of an hour.",
          ("`count by (version, role) (sluice_build_info)` in Prometheus.",),
          ("Restart the processes of the older release with the newer one.",)),
    Alert("ScrapeMissing", TICKET, "2m",
          'up{job=~"sluice.*"} == 0',
          "{{ $labels.instance }} does not answer Prometheus",
          "See whether the process lives. If it does, its metrics port is wrong or blocked; if not, its log says why it ended.",
          "The target is configured and does not answer.",
          ("Is the process there? Its log, its exit code.", "`curl http://INSTANCE/metrics` from the machine of Prometheus."),
          ("Start it again, or take the target out of the configuration if it left for good.",)),
    Alert("FileDescriptorsLow", TICKET, "5m",
          "process_open_fds / process_max_fds > 0.8 and on (job, instance) sluice_build_info",
          "{{ $labels.instance }} has used 80 % of its file descriptors",
          "Raise the limit (ulimit -n, LimitNOFILE) and restart it; then look what opens so many connections.",
          "Each stream of an actor takes one; a process without free ones refuses connections.",
          ("`sluice_actors` of the rank: as many as expected?",),
          ("`LimitNOFILE=65536` or more.",)),
    Alert("CertificateExpiring", TICKET, "10m",
          "sluice_certificate_expiry_timestamp_seconds - time() < 7 * 86400",
          "A certificate that {{ $labels.instance }} uses expires within a week ({{ $labels.file }})",
          "Renew it: write the new files over the old ones. Running processes take them by themselves.",
          "`certificate` is the process's own, `ca` the first of the CA's. Once one has expired, open connections go on and new "
          "ones fail: a process that is started again does not come back.",
          ("The log of the process: `certificates read again`, or why it does not take what lies there.",
           "`openssl x509 -noout -enddate -ext subjectAltName -in FILE` for the file of its `--tls-cert`.",
           "With cert-manager: `kubectl describe certificate`."),
          ("`deploy/certificates/make-certificates FOLDER ROLE`, or what issues yours; then copy key and certificate over the "
           "old ones. docs/security.md, section *Renewal*.",
           "A CA that expires: change it in three steps, docs/security.md.")),
)

# Alerts of the plan that no exported metric can carry. Not written, rather than written and never firing.
NOT_CARRIED = (
    ("RewardDrift", "the reward server exports no comparison with a golden batch"),
    ("EntropyCollapse", "entropy is not exported; DiversityCollapse and AdvantagesVanished watch the same fault"),
    ("NonFiniteGradients", "such a step ends the job: JobEndedBadly fires"),
    ("CheckpointFailing", "a checkpoint that cannot be written ends the job: JobEndedBadly fires, with outcome no_space"),
    ("DiskWillFill", "free space is the machine's: use node_filesystem_avail_bytes of the node exporter"),
)


def shortened(alerts: tuple[Alert, ...], hold: str, window: str) -> tuple[Alert, ...]:
    """The same alerts for drills: they hold for `hold`, and rates look back over `window`."""
    return tuple(Alert(**{**a.__dict__, "hold": "0s" if a.hold == "0s" else hold,
                          "expr": re.sub(r"\[\d+[smh]\]", f"[{window}]", a.expr)}) for a in alerts)


def shortened_records(window: str) -> tuple[Record, ...]:
    return tuple(Record(r.name, re.sub(r"\[\d+[smh]\]", f"[{window}]", r.expr)) for r in RECORDS)


def rules(alerts: tuple[Alert, ...] = ALERTS, records: tuple[Record, ...] = RECORDS) -> str:
    """The rules file. Strings are JSON, which is YAML too and needs no rules of quoting."""
    lines = ["# Written by alerts.py beside this file: edit that. Runbooks: docs/runbooks/.", "groups:",
             "  - name: sluice.records", "    rules:"]
    for record in records:
        lines += [f"      - record: {record.name}", f"        expr: {json.dumps(record.expr)}"]
    lines += ["  - name: sluice.alerts", "    rules:"]
    for alert in alerts:
        lines += [f"      - alert: {alert.name}", f"        expr: {json.dumps(alert.expr)}",
                  f"        for: {alert.hold}", f"        labels: {{severity: {alert.severity}}}", "        annotations:"]
        lines += [f"          {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in annotations(alert).items()]
    return "\n".join(lines) + "\n"


OPERATOR_RULES = "deploy/kubernetes/components/prometheus-operator/rules.yaml"


def operator_rules() -> str:
    """The same rules as an object of the Prometheus operator."""
    head = ["# Written by deploy/prometheus/alerts.py: edit that.", "apiVersion: monitoring.coreos.com/v1",
            "kind: PrometheusRule", "metadata:", "  name: sluice", "  labels:", "    app.kubernetes.io/name: sluice",
            "    app.kubernetes.io/component: metrics", "spec:"]
    return "\n".join(head + ["  " + line for line in rules().splitlines() if not line.startswith("#")]) + "\n"


def annotations(alert: Alert) -> dict[str, str]:
    return {"summary": alert.summary, "description": alert.description, "runbook": f"docs/runbooks/{alert.name}.md"}


def plain(text: str) -> str:
    """A text without templates, for people: "{{ $labels.instance }}" is "an instance"."""
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", text)


def runbook(alert: Alert) -> str:
    lines = [f"# {alert.name}", "", f"{plain(alert.summary)}. Severity: **{alert.severity}**"
             f"{'' if alert.hold == '0s' else f', after {alert.hold}'}.", "", "```promql", alert.expr, "```", "",
             "## What it means", "", alert.means, "", "## Look", ""]
    lines += [f"{n}. {step}" for n, step in enumerate(alert.look, 1)]
    lines += ["", "## Mend", ""] + [f"- {step}" for step in alert.mend]
    lines += ["", "In short: " + plain(alert.description), "", "Written by `deploy/prometheus/alerts.py`."]
    return "\n".join(lines) + "\n"


def index() -> str:
    lines = ["# Runbooks", "", "One page an alert: what it means, where to look, how to mend. The rules are in "
             "[deploy/prometheus/rules.yml](../../deploy/prometheus/rules.yml); how to load them:",
             "[operations.md](../operations.md). *page* wakes somebody, *ticket* can wait for the morning.", "",
             "| alert | severity | after | says |", "| --- | --- | --- | --- |"]
    lines += [f"| [{a.name}]({a.name}.md) | {a.severity} | {'at once' if a.hold == '0s' else a.hold} | {plain(a.summary)} |"
              for a in ALERTS]
    lines += ["", "## What no metric can carry yet", "", "These alerts are not written, because they could not fire:", "",
              "| alert | why not |", "| --- | --- |"]
    lines += [f"| {name} | {why} |" for name, why in NOT_CARRIED]
    lines += ["", "Written by `deploy/prometheus/alerts.py`."]
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """What this table becomes: path from the top of the tree, and text."""
    made = {"deploy/prometheus/rules.yml": rules(), OPERATOR_RULES: operator_rules(),
            "docs/runbooks/README.md": index()}
    made.update({f"docs/runbooks/{alert.name}.md": runbook(alert) for alert in ALERTS})
    return made


def out_of_date(top: str = TOP) -> list[str]:
    """Paths that differ from the table, and runbooks of alerts that are gone."""
    return written_files.out_of_date(files(), os.path.join("docs", "runbooks"), top)


if __name__ == "__main__":
    sys.exit(written_files.main("deploy/prometheus/alerts.py", "rules and runbooks", files, os.path.join("docs", "runbooks")))
