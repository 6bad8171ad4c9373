#!/usr/bin/env python3
"""Recovery figures: SIGKILL under a running job, and the time until it trains again. Writes docs/proof/recovery.md.

    ./sluice proof recovery [--runs N] [--seed S] [--page FILE]

An actor, a learner rank, the coordinator and the reward server are killed N times each. For each kind one cluster of two
ranks and two actors trains one asynchronous job on MovieLens 100K through all of its kills; what was killed is started
again at once. After the last kill the job is cancelled and audited. Ends with 1 unless every audit is clean.
"""

import argparse
import datetime
import os
import random
import sys
import time
from dataclasses import dataclass, field

import audit
import supervise
from supervise import harness

PAGE = os.path.join(harness.TOP, "docs", "proof", "recovery.md")
NAMES = {"actor": ("actor-0", "actor-1"), "rank": ("rank-0", "rank-1"), "coordinator": ("coordinator",),
         "reward": ("reward",)}
WORDS = {"actor": "an actor", "rank": "a learner rank", "coordinator": "the coordinator", "reward": "the reward server"}
WHOLE = {"actor": "its successor has sampled a group", "rank": "the step is reached that it died in",
         "coordinator": "its successor answers", "reward": "a step has all its scores from the successor"}
STEPS = 1000000         # never done: the job is cancelled
STEPS_BETWEEN = 12      # trained in peace before the next kill; more than lie between two checkpoints
EXTRA_STEPS = 10        # at most, by chance, so that a kill may meet any place between two checkpoints
WITHIN_STEP_S = 0.3     # at most, by chance, so that it may meet any part of a step
REWARD_DELAY_MS = 50    # paces the job: without it the machine is full of training and no figure is of recovery
LIMIT_S = 120


@dataclass
class Kind:
    name: str
    next_step_s: list = field(default_factory=list)
    whole_s: list = field(default_factory=list)
    report: dict = None
    abandoned: int = 0


class Drill:
    """One cluster and its job, and one kind of process that is killed."""

    def __init__(self, ground, data, kind, draw):
        self.draw = draw
        self.found = Kind(kind)
        self.data = data
        self.cluster = supervise.Supervisor(ground, data, kind, REWARD_DELAY_MS).start()
        self.job_id, folder = self.cluster.submit(supervise.rl_spec(data, 1, STEPS, record_mib=4096))
        self.folder = os.path.relpath(folder)
        self.progress = supervise.Progress(folder)

    def train_in_peace(self):
        until = self.progress.trained + STEPS_BETWEEN + self.draw.randrange(EXTRA_STEPS)
        self.cluster.wait(lambda: self.progress.look() is not None and self.progress.trained >= until, "the job trains",
                          LIMIT_S)
        time.sleep(self.draw.uniform(0, WITHIN_STEP_S))
        self.progress.look()

    def kill(self, name):
        """Kills, and measures from then on."""
        step = self.progress.step
        began = time.monotonic()
        self.cluster.kill(name)
        is_whole = getattr(self, f"_{self.found.name}_is_whole")
        next_step_s = whole_s = None
        state = {}

        def look():
            nonlocal next_step_s, whole_s
            trained = self.progress.look()
            now = time.monotonic() - began
            if trained and next_step_s is None:
                next_step_s = now
            if whole_s is None and is_whole(name, step, trained, state):
                whole_s = time.monotonic() - began
            return next_step_s is not None and whole_s is not None
        self.cluster.wait(look, f"the job trains again after the end of {name}", LIMIT_S)
        self.found.next_step_s.append(next_step_s)
        self.found.whole_s.append(whole_s)
        print(f"{name}: next step after {next_step_s:.2f} s, whole after {whole_s:.2f} s", flush=True)

    def _actor_is_whole(self, name, step, trained, state):
        return (self.cluster.sample(name, "sluice_groups_sampled_total") or 0) > 0

    def _rank_is_whole(self, name, step, trained, state):
        return self.progress.step > step

    def _coordinator_is_whole(self, name, step, trained, state):
        return self.cluster.is_serving(self.cluster.address)

    def _reward_is_whole(self, name, step, trained, state):
        if not state.get("serves"):
            state["serves"] = self.cluster.is_serving(self.cluster.reward)
            return False
        return trained and self.progress.last["gate/reward_unavailable"] == 0

    def close(self):
        """Cancels the job and audits what it left."""
        self.cluster.wait(lambda: self.cluster.ctl("cancel", self.job_id) is not None, "the cancel is taken")
        job = self.cluster.wait(lambda: (lambda job: job if job and job["state"] == "cancelled" else None)(
            self.cluster.describe(self.job_id)), "the job is cancelled", LIMIT_S)
        self.found.report = audit.audit(self.folder, self.data)
        self.found.abandoned = self.progress.abandoned
        if job["ledger"]["trained"] != self.found.report["trained"]:
            self.found.report["contradictions"].append(f"the coordinator says {job['ledger']}")
        print(audit.text_of(self.found.report), flush=True)
        return self.found


def rows_of(kinds):
    """The table of all kinds."""
    lines = ["| SIGKILL of | runs | next trained step: p50 | p95 | whole again: p50 | p95 | whole is |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for kind in kinds:
        cells = [f"{supervise.percentile(values, share):.2f} s" for values in (kind.next_step_s, kind.whole_s)
                 for share in (0.5, 0.95)]
        lines.append(f"| {WORDS[kind.name]} | {len(kind.whole_s)} | {' | '.join(cells)} | {WHOLE[kind.name]} |")
    return lines


def audits_of(kinds):
    lines = ["| cluster | groups trained | lost | duplicated | unexpected | retried | steps trained again | verdict |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for kind in kinds:
        report = kind.report
        counts = " | ".join(str(len(report[name])) for name in ("lost", "duplicated", "unexpected"))
        lines.append(f"| {WORDS[kind.name]} | {report['trained']} | {counts} | {report['wasted']} | {kind.abandoned} | "
                     f"{'clean' if audit.clean(report) else 'NOT CLEAN'} |")
    return lines


def page(kinds, peaceful_s):
    return "\n".join([
        "# Recovery", "",
        "One process is killed with SIGKILL under a running job, and the time is taken until the job trains its next step, and until",
        "it is whole again. `./sluice proof recovery` runs it and writes this page. For each row one cluster of two learner ranks,",
        "two actors, a reward server and a coordinator lives through all of its kills. The script starts what was killed again at",
        "once, as Kubernetes would the first times (later it waits longer); the start of the process is in the time.", "",
        f"{datetime.date.today()}, {supervise.machine()}. MovieLens 100K; an asynchronous job "
        f"(staleness 2) of {supervise.GROUPS_PER_STEP} groups a",
        f"step, a checkpoint every {supervise.CHECKPOINT_EVERY} steps, leases of ranks {supervise.LEASE_S} s. A step without a fault took "
        f"{peaceful_s:.2f} s.", "",
        *rows_of(kinds), "",
        "A job trains on while an actor or the reward server is away, from groups that are there already and with the other actor. A",
        "step takes its policy version and its ordinals from the coordinator, so training stands until that is back. When a rank dies",
        f"the next group forms once its lease of {supervise.LEASE_S} s is over, and goes back to the last checkpoint: its next step is one "
        "that was", "trained before.", "",
        "After the last kill each job was cancelled and audited:", "", *audits_of(kinds), ""])


def main():
    parser = argparse.ArgumentParser(prog="./sluice proof recovery", description="Kill processes, and measure recovery.")
    parser.add_argument("--runs", type=int, default=20, help="kills of each kind (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the instants (default: 1)")
    parser.add_argument("--page", default=PAGE, help="where to write it (default: docs/proof/recovery.md)")
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("--runs: want at least 1")
    os.chdir(harness.TOP)
    kinds, peaceful = [], []
    with supervise.Ground(os.path.join(harness.TOP, ".sluice", "proof", "recovery")) as ground:
        data = supervise.prepare_movielens(ground)
        for kind, names in NAMES.items():
            drill = Drill(ground, data, kind, random.Random(f"{args.seed} {kind}"))
            drill.train_in_peace()
            for run in range(args.runs):
                began, trained = time.monotonic(), drill.progress.trained
                drill.train_in_peace()
                peaceful.append((time.monotonic() - began) / (drill.progress.trained - trained))
                drill.kill(names[run % len(names)])
            kinds.append(drill.close())
            drill.cluster.stop()
    text = page(kinds, supervise.percentile(peaceful, 0.5))
    with open(args.page, "w", encoding="utf-8") as file:
        file.write(text)
    print(text)
    return 0 if all(audit.clean(kind.report) for kind in kinds) else 1


if __name__ == "__main__":
    sys.exit(main())
