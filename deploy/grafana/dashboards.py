#!/usr/bin/env python3
"""The Grafana dashboards of Sluice, from one table.

    python3 deploy/grafana/dashboards.py            writes deploy/grafana/dashboards/*.json
    python3 deploy/grafana/dashboards.py --check    only says what is out of date, and ends with 1 if anything is

Classic dashboard JSON (schema 39), which Grafana's file provisioning, its sidecar and older versions take. Python's
standard library alone. Edit this file, never what it writes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import written_files  # noqa: E402  # its folder is known from here on

TOP = written_files.TOP
FOLDER = os.path.join("deploy", "grafana", "dashboards")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
S = 'job="$job",instance=~"$instance"'  # what every query selects by
RATE = "[$__rate_interval]"
GREEN, YELLOW, RED = "green", "yellow", "red"
Steps = tuple[tuple[float | None, str], ...]
BAD_ABOVE_0: Steps = ((None, GREEN), (1, RED))
ONE_SHOULD: Steps = ((None, RED), (1, GREEN))


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    title: str
    description: str  # what it shows, and what to do when it looks wrong
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"  # or stat, heatmap
    width: int = 8
    thresholds: Steps = ((None, GREEN),)
    may_be_empty: str = ""  # why a healthy run may have no data here, or only NaN; empty: it must have data


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    by_instance: bool = True  # has the variable $instance; else it is over all of them


def panel(title: str, description: str, unit: str, *queries: tuple[str, str], **options: Any) -> Panel:
    return Panel(title, description, unit, tuple(Query(expr, legend) for expr, legend in queries), **options)


def quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """Median and 95th percentile of a histogram, by a label beside the bucket."""
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return tuple((f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{S}}}{RATE})))", f"{legend}{name}")
                 for q, name in ((0.5, "median"), (0.95, "p95")))


def rate(metric: str, by: str = "", more: str = "") -> str:
    inner = f"rate({metric}{{{S}{more}}}{RATE})"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def buckets(title: str, description: str, unit: str, metric: str, **options: Any) -> Panel:
    return panel(title, description, unit, (f"sum by (le) (increase({metric}_bucket{{{S}}}{RATE}))", "{{le}}"),
                 kind="heatmap", **options)


TRAIN = ',part="train"'
NO_KL = "NaN unless the job measures a KL to a reference"
NO_VALIDATION = "NaN before the first validation"
NO_SCORES_CALLED = "no call while nothing is sampled, and a quantile of nothing is NaN"

OVERVIEW = Dashboard(
    "sluice-overview", "Sluice / Run overview", "Is it learning, is it stuck, what do I do.", (
        Row("Is it well?", (
            panel("Running", "Jobs whose first rank is here. 0 with jobs queued: see LearnerGroupNotFormed.", "none",
                  (f"sum(sluice_job_running{{{S}}})", "jobs"), kind="stat", width=3, thresholds=((None, "blue"),)),
            panel("Since last progress", "Time since a step, checkpoint or new phase. Above 15 minutes: runbook RunStalled.", "s",
                  (f"min(time() - sluice_job_last_progress_timestamp_seconds{{{S}}})", "age"), kind="stat", width=3,
                  thresholds=((None, GREEN), (300, YELLOW), (900, RED))),
            panel("Progress", "Share of the job's steps that are done (of its users, if it evaluates).", "percentunit",
                  (f"max(sluice_job_step{{{S}}}) / (max(sluice_job_total_steps{{{S}}}) > 0)", "done"), kind="stat", width=3),
            panel("Time left", "Steps left over the present rate. Rises when steps slow down: see Learners.", "s",
                  (f"(max(sluice_job_total_steps{{{S}}}) - max(sluice_job_step{{{S}}})) / ({rate('sluice_steps_total')} > 0)", "left"),
                  kind="stat", width=3, may_be_empty="no rate while no job steps"),
            panel("Ledger imbalance", "issued - (trained + dropped + failed + cancelled + open). Anything but 0: cancel the job, "
                  "runbook LedgerImbalance.", "none", (f"sum(abs(sluice_ledger_imbalance{{{S}}}))", "groups"), kind="stat",
                  width=3, thresholds=BAD_ABOVE_0),
            panel("Groups lost", "Groups dropped or failed so far. They are in the books but not trained: runbook GroupsLost.",
                  "none", (f'sum(increase(sluice_groups_total{{{S},state=~"dropped|failed"}}[$__range]))', "groups"),
                  kind="stat", width=3, thresholds=BAD_ABOVE_0),
            panel("Goodput", "Share of a step's time that is training, not waiting. Below a half: runbook LearnerStarved.",
                  "percentunit", (f"{rate('sluice_step_duration_seconds_sum', more=TRAIN)} / "
                                  f"({rate('sluice_step_duration_seconds_sum')} > 0)", "training"), kind="stat", width=3,
                  thresholds=((None, RED), (0.5, YELLOW), (0.8, GREEN)), may_be_empty="no rate while no job steps"),
            panel("Checkpoint age", "What a fault would cost. Above an hour: runbook CheckpointOverdue.", "s",
                  (f"min(time() - sluice_checkpoint_last_success_timestamp_seconds{{{S}}})", "age"), kind="stat", width=3,
                  thresholds=((None, GREEN), (1800, YELLOW), (3600, RED)), may_be_empty="NaN before the first checkpoint"))),
        Row("Is it learning?", (
            panel("NLL", "Loss on logged truth, nats per token. Must fall, then settle; a jump: lower the learning rate.", "none",
                  (f"max(sluice_nll_loss_nats{{{S}}})", "NLL")),
            panel("Reward", "Mean reward of completions and of logged items. Completions must rise; a gap in the line means that "
                  "no group had scores.", "none", (f"max(sluice_reward_mean{{{S}}})", "completions"),
                  (f"max(sluice_reward_target_mean{{{S}}})", "logged items")),
            panel("Validation", "Hit rate and NDCG at 10 on held-out users. The best one is exported. Falling while reward rises: "
                  "the ranker is being exploited; stop.", "percentunit",
                  (f"max by (k) (sluice_validation_hit_ratio{{{S}}})", "hit rate at {{k}}"),
                  (f"max by (k) (sluice_validation_ndcg_ratio{{{S}}})", "NDCG at {{k}}"),
                  may_be_empty=NO_VALIDATION),
            panel("Hallucination", "Free beams that name no item. Rising: the policy forgets the catalog; more weight to the NLL "
                  "term.", "percentunit", (f"max(sluice_validation_hallucination_ratio{{{S}}})", "no item"),
                  may_be_empty=NO_VALIDATION),
            panel("Gate by reason", "What share of groups may move the policy (open), and why others may not. Operational reasons "
                  "(reward_unavailable, stale): see the runbooks of those.", "percentunit",
                  (f"max by (reason) (sluice_gate_reason_ratio{{{S}}})", "{{reason}}")),
            panel("Gate open", "Share of groups that train by reward. 0 for long: it is supervised training; look at the reasons.",
                  "percentunit", (f"max(sluice_gate_open_ratio{{{S}}})", "open")),
            panel("Policy-gradient term and gradient norm", "A norm that grows without end precedes a run that diverges: lower the "
                  "learning rate.", "none", (f"max(sluice_policy_gradient_loss{{{S}}})", "policy-gradient term"),
                  (f"max(sluice_gradient_norm{{{S}}})", "gradient norm")),
            panel("KL to the reference", "Nats per token. Above 1: runbook KlRunaway.", "none",
                  (f"max(sluice_kl_mean_nats{{{S}}})", "KL"), thresholds=((None, GREEN), (1, RED)), may_be_empty=NO_KL),
            panel("Signal in groups", "Diversity near 0 or zero-advantage groups near 1: nothing is learnt from reward; runbooks "
                  "DiversityCollapse and AdvantagesVanished.", "percentunit",
                  (f"max(sluice_group_diversity_ratio{{{S}}})", "diversity"),
                  (f"max(sluice_zero_advantage_groups_ratio{{{S}}})", "zero-advantage groups")))),
    ))

PIPELINE = Dashboard(
    "sluice-pipeline", "Sluice / Pipeline", "One row a stage: what goes in, is under way, comes out.", (
        Row("Groups", (
            panel("Groups by what became of them", "Issued and trained must run together. failed or dropped above 0: runbook "
                  "GroupsLost.", "ops", (rate("sluice_groups_total", "state"), "{{state}}")),
            panel("Groups under way", "Open groups and those with an outcome that no step has committed. Open at its bound with "
                  "parked near 0: the actors are the bottleneck; parked high: the learner is.", "none",
                  (f"sum(sluice_groups_open{{{S}}})", "open"), (f"sum(sluice_groups_parked{{{S}}})", "parked")),
            panel("Frontier", "Lowest ordinal that is not terminal, and terminal ones above it. A frontier that stands while others "
                  "rise: one group is stuck, see LeasesExpire.", "none",
                  (f"min(sluice_frontier_ordinal{{{S}}})", "frontier"),
                  (f"max(sluice_ordinals_ahead_of_frontier{{{S}}})", "ahead of it")))),
        Row("From lease to step", (
            panel("Leases and credits", "Blocks waiting with no credits: too few actors. Credits with no blocks: the staleness bound "
                  "or the learner holds them.", "none", (f"sum(sluice_leases_open{{{S}}})", "leases out"),
                  (f"sum(sluice_lease_blocks_waiting{{{S}}})", "blocks waiting"),
                  (f"sum(sluice_credits_available{{{S}}})", "credits")),
            panel("Actors", "Attached and ready (they hold a usable version). Attached but not ready for long: weights do not "
                  "arrive.", "none", (f"sum by (state) (sluice_actors{{{S}}})", "{{state}}"),
                  (f"sum(sluice_actor_attached{{{S}}})", "say that they are attached"),
                  thresholds=ONE_SHOULD),
            panel("Busy share of actors", "Near 1: add actors. Below 0.2: runbook ActorsUnderused.", "percentunit",
                  (f"avg(rate(sluice_actor_busy_seconds_total{{{S}}}{RATE}))", "busy")),
            panel("Leases by outcome", "returned and void are the price of actors that leave and of new epochs. failed: read the "
                  "actor's log.", "ops", (rate("sluice_leases_total", "outcome"), "{{outcome}}")),
            panel("Leases lost", "Expired: actors die or are too slow, runbook LeasesExpire. Returned: they left in good order.",
                  "ops", (rate("sluice_lease_expired_total"), "expired"), (rate("sluice_lease_returned_total"), "returned")),
            panel("Time of a lease block", "Longer than rl.lease_deadline_s: it expires. Longer than several steps: stale.", "s",
                  *quantiles("sluice_lease_block_seconds"), may_be_empty="a quantile of nothing is NaN while no lease runs"),
            panel("Deliveries by outcome", "accepted must dominate. stale_version: runbook StalenessBudgetExceeded. late, epoch: "
                  "after faults only.", "ops", (rate("sluice_deliveries_total", "outcome"), "{{outcome}}"),
                  (rate("sluice_duplicate_deliveries_total"), "duplicate"),
                  (rate("sluice_results_refused_total"), "refused, by the actors' count")),
            panel("Sampling", "Work of all actors. Falls to 0 with blocks waiting: they hang; read their logs.", "ops",
                  (rate("sluice_groups_sampled_total"), "groups"), (rate("sluice_sample_tokens_total"), "tokens"),
                  (rate("sluice_prompts_decoded_total"), "prompts for evaluation")),
            panel("Sessions", "Streams opened to ranks. A steady rate: connections break; look at the network and LeasesExpire.",
                  "ops", (rate("sluice_actor_sessions_total"), "opened"), width=8))),
        Row("Freshness", (
            panel("Staleness of what is trained", "Versions between sampling and training. At rl.staleness all the time: the actors "
                  "are too slow for that bound.", "none", (f"max(sluice_staleness_mean_versions{{{S}}})", "mean"),
                  (f"max(sluice_staleness_max_versions{{{S}}})", "largest")),
            panel("Versions", "Published, held by actors, and the largest lag. Must only rise within a job; runbook "
                  "PolicyVersionWentBackwards.", "none", (f"max(sluice_published_policy_version{{{S}}})", "published"),
                  (f"min(sluice_policy_version{{{S}}})", "oldest that an actor samples with"),
                  (f"max(sluice_actor_version_lag_max{{{S}}})", "largest lag")),
            panel("Time of a weight update", "transfer: network or the learner's link. commit: the actor's memory.", "s",
                  *quantiles("sluice_weight_phase_seconds", "phase"),
                  may_be_empty="a quantile of nothing is NaN while no weights travel"),
            panel("Actors by weights", "Where each actor is with the published version. pending_weights for long: it misses deadlines or "
                  "cannot fetch; read its log. syncing for long: a slow link, or too many actors for one rank (docs/scale.md).",
                  "none", (f"sum by (state) (sluice_actor_weight_states{{{S}}})", "{{state}}")),
            panel("Time of a publication", "Of each actor, from what the rank asks to its answer. prepare: the actor is busy or short "
                  "of memory; transfer: the network; quorum: what --min-actors costs the learner.", "s",
                  *quantiles("sluice_publish_phase_seconds", "phase"),
                  may_be_empty="a quantile of nothing is NaN while no weights travel"),
            panel("Publications that went astray", "Left out: a deadline was missed. Mismatches must be 0: an actor held other bytes. "
                  "Fallbacks (no_peer, late, peer_failed): the rank sent what another actor should have; no_peer means that too few "
                  "actors have a --peer-address. group_late, group_failed: a broadcast did not reach the actor, which fetched.", "ops", (rate("sluice_publish_left_out_total"), "left out"),
                  (rate("sluice_publish_mismatches_total"), "mismatches"),
                  (rate("sluice_publish_fallbacks_total", "reason"), "{{reason}}"),
                  (rate("sluice_peer_fallbacks_total"), "by the actors' count")),
            panel("Who sends the weights", "Transfers that ranks named themselves or another actor for, and fetches that actors refused "
                  "one another.", "ops", (rate("sluice_publish_transfers_total", "source"), "{{source}}"),
                  (rate("sluice_peer_refusals_total"), "refused")),
            panel("Weight groups", "With --weights gloo or nccl. Formed: the members changed, or a broadcast failed; a steady rate means "
                  "that actors come and go, or that rounds fail. Paused (1): too many failed in a row, and everybody fetches for "
                  "some minutes; the rank's log has the reason. Alert WeightGroupPaused.", "none", (rate("sluice_publish_groups_total"), "formed a second"),
                  (rate("sluice_publish_group_pauses_total"), "pauses a second"),
                  (f"max(sluice_publish_group_paused{{{S}}})", "paused")),
            panel("Bytes between actors", "Weights that actors sent to one another in place of a rank.", "Bps",
                  (rate("sluice_peer_weight_bytes_total"), "sent")),
            panel("Bytes of weights", "Sent by ranks and received by actors. Far above versions times size times actors: they fetch "
                  "again and again, see WeightsCorrupted.", "Bps", (rate("sluice_weight_bytes_total", "role"), "{{role}}"),
                  (rate("sluice_weight_broadcast_bytes_total", "role"), "broadcast, {{role}}")),
            panel("Who waits for what", "Seconds of waiting a second, also of waits that last. rank for groups: too few actors, or slow "
                  "ones. rank for peers: a slow or silent rank, or the network. rank for checkpoint: slow storage. actor for "
                  "lease: more actors than work. actor for scores: the reward server.", "none",
                  (rate("sluice_blocked_seconds_total", "who, on"), "{{who}} for {{on}}")),
            panel("Weight chunks", "Mismatches must be 0: runbook WeightsCorrupted. Hashed while they were sent: catalogs alone, as weights come with their "
                  "hashes; a steady rate means that actors fetch catalogs again and again.", "ops",
                  (rate("sluice_weight_chunks_hashed_total"), "hashed"),
                  (rate("sluice_weight_checksum_mismatch_total"), "mismatches")))),
    ))

REWARD = Dashboard(
    "sluice-reward", "Sluice / Reward server", "Rate, errors and durations of scoring, and scores that are refused.", (
        Row("Calls", (
            panel("Calls by code", "OK must dominate. RESOURCE_EXHAUSTED: runbook RewardOverloaded. INVALID_ARGUMENT or "
                  "FAILED_PRECONDITION: runbook RewardRejected.", "reqps", (rate("sluice_reward_requests_total", "code"), "{{code}}")),
            panel("Time of a call", "In the server. p95 above a second: runbook RewardSlow.", "s",
                  *quantiles("sluice_reward_request_duration_seconds"), thresholds=((None, GREEN), (1, RED)),
                  may_be_empty=NO_SCORES_CALLED),
            buckets("Times of calls", "Two bands: two kinds of calls, or a cache. A band that climbs: the server is filling up.",
                    "s", "sluice_reward_request_duration_seconds", may_be_empty=NO_SCORES_CALLED))),
        Row("Groups", (
            panel("Groups by outcome", "not_finite and failed must be 0: runbook RewardInvalidScores.", "ops",
                  (rate("sluice_reward_groups_total", "outcome"), "{{outcome}}")),
            panel("Scores as actors see them", "unavailable: runbook RewardUnavailable. rejected: runbook RewardRejected. "
                  "not_asked: the objective needs none.", "ops", (rate("sluice_reward_status_total", "status"), "{{status}}")),
            panel("Queue", "Groups waiting. Grows without end: add a server.", "none",
                  (f"sum(sluice_reward_queued_groups{{{S}}})", "queued")),
            panel("Queue delay", "Wait before a batch is computed. Above the time of a batch: add a server.", "s",
                  *quantiles("sluice_reward_queue_delay_seconds"), may_be_empty=NO_SCORES_CALLED),
            panel("Time of a batch", "The ranker itself. Rises with the size of batches; alone: the ranker got slower.", "s",
                  *quantiles("sluice_reward_batch_duration_seconds"), may_be_empty=NO_SCORES_CALLED),
            panel("Groups in a batch", "1 all the time under load: the batching delay is too short to gather any.", "none",
                  *quantiles("sluice_reward_batch_groups"), may_be_empty=NO_SCORES_CALLED),
            panel("Candidates in a batch", "At the configured limit all the time: batches are full; add a server.", "none",
                  *quantiles("sluice_reward_batch_candidates"), may_be_empty=NO_SCORES_CALLED))),
        Row("As the learner sees it", (
            panel("State of scores", "brownout: fewer leases go out, see RewardSlow. outage, probing: none or one, and what waits for "
                  "too long trains on logged truth, see RewardUnavailable. `sluicectl logs JOB` has the cause of each move.", "none",
                  (f"sum by (state) (sluice_learner_reward_state{{{S}}})", "{{state}}")),
            panel("Moves between states", "outage again and again: the ranker comes back and fails under load, or its canary is out "
                  "of range.", "ops", (rate("sluice_learner_reward_transitions_total", "state"), "to {{state}}")),
            panel("Groups that wait for scores", "Tried again until rl.reward.park_s is over. Near the open groups: nothing is scored.",
                  "none", (f"sum(sluice_groups_unscored{{{S}}})", "groups")),
            panel("Degraded steps", "Steps that more groups than rl.operational_share entered without rewards. The budget "
                  "(rl.operational_steps, rl.operational_s) ends in what rl.on_reward_outage says.", "ops",
                  (rate("sluice_degraded_steps_total"), "steps")))),
    ))

LEARNERS = Dashboard(
    "sluice-learners", "Sluice / Learners", "Where the time of a step goes, and what a rank uses.", (
        Row("Steps", (
            panel("Steps", "Training steps a second, all jobs. 0 while a job runs: validation, or runbook RunStalled.", "ops",
                  (rate("sluice_steps_total"), "steps")),
            panel("Time of a step by part", "wait: for scored groups. train: passes, all-reduce, optimizer. Wait above train: runbook "
                  "LearnerStarved.", "s",
                  (f"sum by (part) (rate(sluice_step_duration_seconds_sum{{{S}}}{RATE})) / "
                   f"sum by (part) (rate(sluice_step_duration_seconds_count{{{S}}}{RATE}))", "{{part}}"),
                  may_be_empty="a mean of nothing is NaN while no job steps"),
            panel("Step times", "The tail: single steps far above the median are waits for a straggling lease.", "s",
                  *quantiles("sluice_step_duration_seconds", "part"),
                  may_be_empty="a quantile of nothing is NaN while no job steps"),
            panel("Learning rate", "As the schedule says. A resumed job goes on where it was.", "sci",
                  (f"max(sluice_learning_rate{{{S}}})", "learning rate")),
            panel("Actor and learner agree", "Largest difference of a log-probability at the same weights, in nats. Above 0.05: actor "
                  "and learner compute differently; report it.", "none",
                  (f"max(sluice_log_prob_mismatch_max_nats{{{S}}})", "difference"), thresholds=((None, GREEN), (0.05, RED)),
                  may_be_empty="NaN unless the step had groups of its own version"),
            panel("Checkpoints", "Written in the interval. None for an hour of training: runbook CheckpointOverdue.", "none",
                  (f"sum(increase(sluice_checkpoints_total{{{S}}}{RATE}))", "written")))),
        Row("Ranks", (
            panel("CPU of ranks", "Cores. One rank at 0 while others work: it hangs; runbook RunStalled.", "none",
                  (f'sum by (instance) (rate(process_cpu_seconds_total{{{S},role="rank"}}{RATE}))', "{{instance}}"), width=12),
            panel("Memory of ranks", "Resident. A steady climb: report it; near the limit: fewer groups a step.", "bytes",
                  (f'sum by (instance) (process_resident_memory_bytes{{{S},role="rank"}})', "{{instance}}"), width=12))),
    ))

SERVICE = Dashboard(
    "sluice-service", "Sluice / Service health", "Every process of one deployment.", (
        Row("Processes", (
            panel("Answering", "1: Prometheus reaches it. 0: runbook ScrapeMissing.", "none",
                  (f"sum by (role, instance) (up{{{S}}})", "{{role}} {{instance}}"), thresholds=ONE_SHOULD),
            panel("Releases", "Processes by release. More than one: finish the upgrade, runbook VersionSkew.", "none",
                  (f"count by (version, role) (sluice_build_info{{{S}}})", "{{role}} {{version}}")),
            panel("Age", "Since the process started. Falls to 0 again and again: runbook RestartLoop.", "s",
                  (f"time() - process_start_time_seconds{{{S}}}", "{{role}} {{instance}}")),
            panel("CPU", "Cores by process. At the limit of its container: give it more, or fewer threads.", "none",
                  (f"sum by (role, instance) (rate(process_cpu_seconds_total{{{S}}}{RATE}))", "{{role}} {{instance}}")),
            panel("Memory", "Resident by process. Near the limit of its container: it will be killed without a word.", "bytes",
                  (f"sum by (role, instance) (process_resident_memory_bytes{{{S}}})", "{{role}} {{instance}}")),
            panel("File descriptors", "Share used. Above 0.8: runbook FileDescriptorsLow.", "percentunit",
                  (f"process_open_fds{{{S}}} / process_max_fds{{{S}}}", "{{role}} {{instance}}"),
                  thresholds=((None, GREEN), (0.8, RED))),
            panel("Certificates", "Time until the first one of a process expires, its own or its CA's. Below a week: runbook "
                  "CertificateExpiring.", "s",
                  (f"min by (role, instance) (sluice_certificate_expiry_timestamp_seconds{{{S}}}) - time()",
                   "{{role}} {{instance}}"),
                  thresholds=((None, RED), (7 * 86400, GREEN)), may_be_empty="processes without TLS have none"))),
        Row("Jobs and the group", (
            panel("Jobs", "Not yet ended. Queued above 0 with none running: runbook LearnerGroupNotFormed.", "none",
                  (f"sum by (state) (sluice_coordinator_jobs{{{S}}})", "{{state}}")),
            panel("Members and epoch", "Ranks that keep their lease, and the group's epoch (0: there is none). An epoch that climbs: "
                  "runbook GroupKeepsBreaking.", "none", (f"sum(sluice_coordinator_members{{{S}}})", "members"),
                  (f"max(sluice_coordinator_epoch{{{S}}})", "epoch"), (f"max(sluice_coordinator_draining{{{S}}})", "draining")),
            panel("Ends of jobs", "failed, held, no_space: runbook JobEndedBadly. broken: the group formed again.", "none",
                  (f"sum by (outcome) (increase(sluice_jobs_ended_total{{{S}}}{RATE}))", "{{outcome}}")))),
    ))

FLEET = Dashboard(
    "sluice-fleet", "Sluice / Fleet", "All deployments that this Prometheus sees.", (
        Row("Deployments", (
            panel("Jobs running", "By deployment. 0 where one should run: open its overview, then its service health.", "none", ('sum by (job) (sluice_job_running{job=~"$job"})', "{{job}}")),
            panel("Since last progress", "Of running jobs. Above 15 minutes: runbook RunStalled.", "s",
                  ('max by (job) (time() - sluice_job_last_progress_timestamp_seconds{job=~"$job"} and '
                   'sluice_job_running{job=~"$job"} == 1)', "{{job}}"), thresholds=((None, GREEN), (900, RED)),
                  may_be_empty="only running jobs have it"),
            panel("Groups trained", "A second. A deployment whose line falls to 0 while others run: open its overview.", "ops",
                  ('sum by (job) (rate(sluice_groups_total{job=~"$job",state="trained"}[$__rate_interval]))', "{{job}}")),
            panel("Processes by role", "Answering. Fewer than deployed: runbook ScrapeMissing.", "none",
                  ('sum by (job, role) (up{job=~"$job"})', "{{job}} {{role}}")),
            panel("Cores used", "By deployment and role: what it costs.", "none",
                  ('sum by (job, role) (rate(process_cpu_seconds_total{job=~"$job"}[$__rate_interval]))', "{{job}} {{role}}")),
            panel("Alerts firing", "By severity. Open the runbook that the alert names.", "none",
                  ('sum by (severity, alertname) (ALERTS{alertstate="firing",job=~"$job"})', "{{severity}} {{alertname}}"),
                  may_be_empty="nothing fires in a healthy run"))),
    ), by_instance=False)

DASHBOARDS = (OVERVIEW, PIPELINE, REWARD, LEARNERS, SERVICE, FLEET)

# Exported, and neither on a panel nor in an alert, with the reason.
NOT_SHOWN: dict[str, str] = {
    "exposer_transferred_bytes_total": "of the library that serves /metrics",
    "exposer_scrapes_total": "of the library that serves /metrics",
    "exposer_request_latencies": "of the library that serves /metrics",
}

ANNOTATIONS = (
    ("Job begins or goes on", "blue", 'changes(sluice_job_start_timestamp_seconds{job=~"$job"}[$__interval]) > 0'),
    ("Checkpoint", "green", 'changes(sluice_checkpoint_last_success_timestamp_seconds{job=~"$job"}[$__interval]) > 0'),
    ("New group", "orange", 'changes(sluice_coordinator_epoch{job=~"$job"}[$__interval]) > 0'),
    ("Process started", "purple", 'changes(process_start_time_seconds{job=~"$job"}[$__interval]) > 0'),
)


def variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    def query(name: str, label: str, text: str, multi: bool) -> dict[str, Any]:
        made: dict[str, Any] = {"name": name, "label": label, "type": "query", "datasource": SOURCE, "refresh": 2, "sort": 1,
                                "query": {"query": text, "refId": name}, "definition": text, "multi": multi,
                                "includeAll": multi}
        if multi:
            made.update(allValue=".*", current={"text": "All", "value": "$__all"})
        return made

    found = [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
             query("job", "Deployment", 'label_values(sluice_build_info, job)', not dashboard.by_instance)]
    if dashboard.by_instance:
        found.append(query("instance", "Instance", 'label_values(sluice_build_info{job="$job"}, instance)', True))
    return found


def panel_json(panel: Panel, number: int, x: int, y: int, height: int) -> dict[str, Any]:
    targets = [{"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": query.expr, "legendFormat": query.legend,
                **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
                **({"instant": True} if panel.kind == "stat" else {})} for n, query in enumerate(panel.queries)]
    steps = [{"color": color, "value": value} for value, color in panel.thresholds]
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        marked = {"mode": "line"} if len(steps) > 1 else {"mode": "off"}
        defaults["custom"] = {"fillOpacity": 5, "showPoints": "never", "spanNulls": False, "thresholdsStyle": marked}
        options = {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
                   "tooltip": {"mode": "multi", "sort": "desc"}}
    elif panel.kind == "stat":
        options = {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
    elif panel.kind == "heatmap":
        options = {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"scheme": "Blues", "mode": "scheme"}}
    return {"id": number, "type": panel.kind, "title": panel.title, "description": panel.description, "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": panel.width, "h": height}, "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options}


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """Panels flow from left to right under the title of their row."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in dashboard.rows:
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        y += 1
        x = height = 0
        for one in row.panels:
            if x + one.width > WIDTH:
                x, y = 0, y + height
                height = 0
            tall = 4 if one.kind == "stat" else 8
            panels.append(panel_json(one, len(panels) + 1, x, y, tall))
            x, height = x + one.width, max(height, tall)
        y += height
    annotations = [{"name": name, "enable": True, "datasource": SOURCE, "iconColor": color, "expr": expr,
                    "titleFormat": name, "textFormat": "{{role}} {{instance}}"} for name, color, expr in ANNOTATIONS]
    links = [{"type": "dashboards", "title": "Sluice", "tags": ["sluice"], "asDropdown": True, "includeVars": True,
              "keepTime": True}]
    return {"uid": dashboard.uid, "title": dashboard.title, "description": dashboard.description, "tags": ["sluice"],
            "schemaVersion": 39, "version": 1, "editable": False, "graphTooltip": 1, "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"}, "timezone": "browser", "links": links,
            "annotations": {"list": annotations}, "templating": {"list": variables(dashboard)}, "panels": panels}


def files() -> dict[str, str]:
    """Path from the top of the tree, and text."""
    return {os.path.join(FOLDER, f"{dashboard.uid}.json"): json.dumps(dashboard_json(dashboard), indent=1) + "\n"
            for dashboard in DASHBOARDS}


def metric_names(expr: str) -> set[str]:
    """The metrics that an expression asks for, histograms by the name of their family."""
    bare = re.sub(r'"[^"]*"', "", re.sub(r"\b(?:by|on|without) \([^)]*\)", "", expr))
    found = set(re.findall(r"(?<![:\w$])((?:sluice|process)_\w+)(?![\w:])", bare))
    return {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in found}


def shown() -> set[str]:
    """All metrics on panels."""
    names: set[str] = set()
    for dashboard in DASHBOARDS:
        for row in dashboard.rows:
            for one in row.panels:
                for query in one.queries:
                    names |= metric_names(query.expr)
    return names


def out_of_date(top: str = TOP) -> list[str]:
    return written_files.out_of_date(files(), FOLDER, top)


if __name__ == "__main__":
    sys.exit(written_files.main("deploy/grafana/dashboards.py", "dashboards", files, FOLDER))
