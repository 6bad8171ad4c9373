#!/usr/bin/env python3
"""A soak: a seeded schedule of faults on a running job, beside the same job without faults. Writes docs/proof/soak.md.

    ./sluice proof soak [--minutes N] [--seed S] [--steps N] [--baselines N] [--page FILE]

Two clusters of two ranks, two actors, a reward server and a coordinator train the same asynchronous job on MovieLens 100K.
One of them is broken at most ten seconds after the last time, for N minutes; then its job may end. The same seed gives the
same schedule. At the end the auditor looks at all runs, and HR@10 of the disturbed job is held against that of the
undisturbed ones, which are several seeds, so that the noise of a seed is known. Ends with 1 unless all is well.
"""

import argparse
import datetime
import os
import random
import signal
import statistics
import sys
import time
from dataclasses import dataclass

import audit
import supervise
from supervise import harness

PAGE = os.path.join(harness.TOP, "docs", "proof", "soak.md")
MIN_GAP_S, MAX_GAP_S, PROMISED_GAP_S = 3.0, 9.0, 10.0
MIN_PAUSE_S, MAX_PAUSE_S = 1.0, 8.0  # a rank's lease is in between
REWARD_DELAY_MS = 300                # paces the job, so that it lasts without filling the machine
SLOW_MS = 6000                       # of a slow reward server; the job waits for 5 s
STEPS_A_MINUTE = 90                  # more than a disturbed job does
SHARES = {"actor": 0.27, "rank": 0.2, "coordinator": 0.15, "reward": 0.14, "ranker": 0.1, "link-reward": 0.07,
          "link-coordinator": 0.07}
LINK_KINDS = {"part": 1, "reset": 1, "lossy": 1}
KINDS = {"actor": {"kill": 2, "terminate": 1, "pause": 1}, "rank": {"kill": 2, "terminate": 1, "pause": 1},
         "coordinator": {"kill": 2, "terminate": 1}, "reward": {"kill": 2, "terminate": 1, "pause": 1, "slow": 1},
         "ranker": {"nan": 1, "short": 1, "version": 1, "swapped": 1, "constant": 1, "shuffled": 1},
         "link-reward": LINK_KINDS, "link-coordinator": LINK_KINDS}
NAMES = {"actor": ("actor-0", "actor-1"), "rank": ("rank-0", "rank-1")}  # of others: the role itself
ROLES = {"actor": "actor", "rank": "rank", "coordinator": "coordinator", "reward": "reward server", "ranker": "scores",
         "link-reward": "network, actors to reward server", "link-coordinator": "network, ranks and actors to coordinator"}
WORDS = {"kill": "SIGKILL", "terminate": "SIGTERM", "pause": "SIGSTOP, then SIGCONT", "slow": "answers past the deadline",
         "part": "nothing passes", "reset": "connections reset", "lossy": "slow and lossy", "nan": "not a number",
         "short": "one too few", "version": "of another version", "swapped": "of another group",
         "constant": "the same for all", "shuffled": "of another item"}
LASTING = ("pause", "slow", "part", "lossy", *KINDS["ranker"])
LOSSY = {"delay_s": 0.03, "jitter_s": 0.02, "stall_probability": 0.1, "reset_probability": 0.02}
EXPECTED_ENDS = (harness.DONE, -signal.SIGTERM, -signal.SIGKILL)
# Two-sided 95 % quantiles of Student's t by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Fault:
    at_s: float
    kind: str       # of WORDS
    target: str     # name of a process
    seconds: float  # how long it lasts; 0: at once

    def __str__(self):
        return f"{self.at_s:7.1f} s  {self.target:<16} {WORDS[self.kind]}" + (f" {self.seconds:.1f} s" if self.seconds else "")


def schedule(seed, duration_s):
    """The faults of a soak: a pure function of its arguments; a longer one begins with the shorter one."""
    draw = random.Random(seed)
    faults, at = [], 0.0
    while True:
        at += draw.uniform(MIN_GAP_S, MAX_GAP_S)
        role = draw.choices(list(SHARES), list(SHARES.values()))[0]
        kind = draw.choices(list(KINDS[role]), list(KINDS[role].values()))[0]
        target = draw.choice(NAMES.get(role, (role,)))
        seconds = draw.uniform(MIN_PAUSE_S, MAX_PAUSE_S)
        if at > duration_s:
            return faults
        faults.append(Fault(round(at, 1), kind, target, round(seconds, 1) if kind in LASTING else 0.0))


class Attack:
    """Carries a schedule out. `steps_between`: by what was trained since the last fault instead of by time, for tests."""

    def __init__(self, supervisor, progress, faults, steps_between=None, tell=lambda text: None):
        self.supervisor, self.progress, self.tell = supervisor, progress, tell
        self.left = list(faults)
        self.steps_between = steps_between
        self.began = time.monotonic()
        self.struck = []    # (fault, when)
        self.waits = []     # (fault, the longest time without a trained step from it until the first one after the next)
        self._open = []     # [fault, when it or the last step came, longest so far], whose number is not known yet
        self._lasting = []  # (until, function that ends it)
        self._mark = progress.trained

    def look(self):
        """Does what is due. True once every fault was made and is over, and the job has trained since."""
        now = time.monotonic() - self.began
        for entry in [entry for entry in self._lasting if entry[0] <= now]:
            self._lasting.remove(entry)
            entry[1]()
        if self.progress.look():
            self._note_step(now)
        if self.left and self._due(now):
            self._strike(self.left.pop(0), now)
        return not self.left and not self._lasting and not self._open

    def _due(self, now):
        if self.steps_between is None:
            return self.left[0].at_s <= now
        return self.progress.trained >= self._mark + self.steps_between

    def _note_step(self, now):
        for entry in self._open:
            entry[1:] = [now, max(entry[2], now - entry[1])]
        over = len(self._open) if not self.left else len(self._open) - 1
        self.waits += [(fault, longest) for fault, _, longest in self._open[:over]]
        del self._open[:over]

    def _strike(self, fault, now):
        process, link = (of.get(fault.target) for of in (self.supervisor.processes, self.supervisor.links))
        if fault.kind == "kill":
            self.supervisor.kill(fault.target)
        elif fault.kind == "terminate":
            self.supervisor.terminate(fault.target)
        elif fault.kind == "reset":
            link.reset()
        elif fault.kind == "pause":
            process.send(signal.SIGSTOP)
            self._lasting.append((now + fault.seconds, process.resume))
        elif fault.kind == "slow":
            self._restart_reward(SLOW_MS)
            self._lasting.append((now + fault.seconds, lambda: self._restart_reward(self.supervisor.reward_delay_ms)))
        elif fault.target == "ranker":
            self.supervisor.sicken(fault.kind)
            self._lasting.append((now + fault.seconds, lambda: self.supervisor.sicken("well")))
        else:
            link.partition() if fault.kind == "part" else link.set(**LOSSY)
            self._lasting.append((now + fault.seconds, link.heal))
        self.tell(f"{fault}, at step {self.progress.step}")
        self.struck.append((fault, now))
        self._open.append([fault, now, 0.0])
        self._mark = self.progress.trained

    def _restart_reward(self, delay_ms):
        self.supervisor.delay_rewards(delay_ms)
        self.supervisor.kill("reward")

    def largest_gap_s(self):
        times = [0.0] + [at for _, at in self.struck]
        return max(later - earlier for earlier, later in zip(times, times[1:]))


# ---------------------------------------------------------------------------------------------------------- results

def noise(values):
    """(mean, half width of the interval in which 95 of 100 further runs of another seed lie)."""
    spread = statistics.stdev(values) * (1 + 1 / len(values)) ** 0.5
    return statistics.mean(values), STUDENT[len(values) - 1] * spread


class Run:
    """A job of a cluster, and what it left."""

    def __init__(self, supervisor, data, seed, steps):
        self.supervisor, self.data, self.seed = supervisor, data, seed
        self.job_id, folder = supervisor.submit(supervise.rl_spec(data, seed, steps))
        self.folder = os.path.relpath(folder)

    def has_results(self):
        return os.path.exists(os.path.join(self.folder, "results.json"))

    def close(self):
        """Reads what it left; fails if it did not succeed."""
        def ended():
            job = self.supervisor.describe(self.job_id)
            return job if job and job["state"] not in ("queued", "running") else None
        job = self.supervisor.wait(ended, "the coordinator knows of the end")
        if job["state"] != "succeeded":
            raise AssertionError(f"the job of seed {self.seed} is {job['state']}: {job['message']}")
        self.report = audit.audit(self.folder, self.data)
        numbers = harness.read_json(self.folder, "results.json")["numbers"]
        self.hit_rate, self.seconds = numbers["final"]["validation/hr@10"], numbers["run"]["seconds"]


class Soak:
    def __init__(self, args, ground):
        self.args = args
        self.steps = args.steps or round(args.minutes * STEPS_A_MINUTE)
        self.data = supervise.prepare_movielens(ground)
        names = ["soak"] + [f"baseline-{i}" for i in range(args.baselines)]
        self.broken, *self.calm = [
            supervise.Supervisor(ground, self.data, name, REWARD_DELAY_MS, links=name == "soak", weights=args.weights).start()
            for name in names]

    def run(self):
        seeds = range(self.args.seed, self.args.seed + self.args.baselines)
        self.soaked = Run(self.broken, self.data, self.args.seed, self.steps)
        self.baselines = [Run(supervisor, self.data, seed, self.steps) for supervisor, seed in zip(self.calm, seeds)]
        progress = supervise.Progress(self.soaked.folder)
        self.wait(lambda: progress.look() or progress.step, "the job trains", harness.LIMIT_S)
        faults = schedule(self.args.seed, self.args.minutes * 60)
        print(f"seed {self.args.seed}: {len(faults)} faults in {self.args.minutes:g} minutes, {self.steps} steps", flush=True)
        began = time.monotonic()
        self.attack = Attack(self.broken, progress, faults, tell=lambda text: print(text, flush=True))
        limit_s = max(1200, self.args.minutes * 60 * (1 + self.args.baselines))
        self.wait(lambda: self.attack.look() or self.has_ended([self.soaked]), "the faults are over", limit_s)
        self.rate_under_faults = progress.step / (time.monotonic() - began)
        print("the faults are over; the jobs may end", flush=True)
        self.wait(lambda: progress.look() is not None and self.has_ended([self.soaked]), "the job ends", limit_s)
        self.wall_s = time.monotonic() - began
        self.wait(lambda: self.has_ended(self.baselines), "the baselines end", limit_s)
        for run in [self.soaked, *self.baselines]:
            run.close()

    def wait(self, condition, what, limit_s):
        """Looks after all clusters."""
        def look():
            for supervisor in self.calm:
                supervisor.look()
            return condition()
        return self.broken.wait(look, what, limit_s)

    @staticmethod
    def has_ended(runs):
        return all(run.has_results() or run.supervisor.is_idle() for run in runs)

    def problems(self):
        """What keeps this soak from being a good one, in words."""
        found = []
        for run in [self.soaked, *self.baselines]:
            if not audit.clean(run.report):
                found.append(f"the audit of {run.folder} is not clean")
            if run.report["trained"] != self.steps * supervise.GROUPS_PER_STEP:
                found.append(f"{run.folder} trained {run.report['trained']} groups")
        mean, width = self.noise()
        if abs(self.soaked.hit_rate - mean) > width:
            found.append("HR@10 of the disturbed job is outside of the noise of the seeds")
        if self.attack.left:
            found.append(f"the job ended {len(self.attack.left)} faults too early; give it more --steps")
        if self.attack.largest_gap_s() > PROMISED_GAP_S:
            found.append(f"{self.attack.largest_gap_s():.1f} s passed between two faults")
        for supervisor in (self.broken, *self.calm):
            crashed = [f"{name} with {code}" for name, code in supervisor.ends if code not in EXPECTED_ENDS]
            if crashed or (supervisor.ends and supervisor is not self.broken):
                found.append(f"ended by themselves in {supervisor.name}: {crashed or supervisor.ends}")
        if self.broken.overran:
            found.append("did not end in time after SIGTERM: " + ", ".join(self.broken.overran))
        return found

    def noise(self):
        return noise([run.hit_rate for run in self.baselines])

    def calm_rate(self):
        """Steps a second without faults."""
        return self.steps / statistics.mean(run.seconds for run in self.baselines)

    def goodput(self):
        """The time of the job without faults over its time with them."""
        return statistics.mean(run.seconds for run in self.baselines) / self.wall_s


def faults_table(attack):
    lines = ["| where | fault | times | longest wait for a step, p50 | p95 |", "| --- | --- | --- | --- | --- |"]
    for role, kinds in KINDS.items():
        for kind in kinds:
            waits = [seconds for fault, seconds in attack.waits
                     if fault.target in NAMES.get(role, (role,)) and fault.kind == kind]
            if waits:
                lines.append(f"| {ROLES[role]} | {WORDS[kind]} | {len(waits)} | {supervise.percentile(waits, 0.5):.1f} s | "
                             f"{supervise.percentile(waits, 0.95):.1f} s |")
    return lines


def runs_table(soak):
    lines = ["| run | seed | HR@10 | steps a second | lost | duplicated | unexpected | retried groups |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, run, seconds in [("soak", soak.soaked, soak.wall_s)] + [("no faults", r, r.seconds) for r in soak.baselines]:
        counts = " | ".join(str(len(run.report[what])) for what in ("lost", "duplicated", "unexpected"))
        lines.append(f"| {name} | {run.seed} | {run.hit_rate:.4f} | {soak.steps / seconds:.2f} | {counts} | "
                     f"{run.report['wasted']} |")
    return lines


def page(soak):
    args, attack = soak.args, soak.attack
    mean, width = soak.noise()
    problems = soak.problems()
    ended = ", ".join(f"{ROLES[role]} {sum(name.startswith(role) for name, _ in soak.broken.ends)}"
                      for role in ("actor", "rank", "coordinator", "reward"))
    return "\n".join([
        "# Soak", "",
        f"{len(attack.struck)} faults in {args.minutes:g} minutes on a job of two learner ranks, two actors, a reward server and a "
        "coordinator,", "beside the same job without faults. "
        f"`./sluice proof soak --minutes {args.minutes:g} --seed {args.seed} --baselines {args.baselines} --weights {args.weights}` runs it and writes this",
        "page; the test `faults.soak` is a short form of it. What ends is started again at once by the script that watches it, as",
        "Kubernetes would the first times (later it waits longer).", "",
        f"{datetime.date.today()}, {supervise.machine()}. MovieLens 100K; an asynchronous job from",
        f"random weights (staleness 2), {soak.steps} steps of {supervise.GROUPS_PER_STEP} groups, a checkpoint every "
        f"{supervise.CHECKPOINT_EVERY} steps, recorded. The reward",
        f"server waits {REWARD_DELAY_MS} ms for each batch in all runs, which only makes the job last. Seed {args.seed}; the same seed is "
        "the same schedule.", "",
        f"**Verdict: {'passed' if not problems else 'FAILED: ' + '; '.join(problems)}.**", "",
        "## The auditor's block", "", "```", audit.text_of(soak.soaked.report), "```", "",
        "*wasted* are groups that were leased again after a lease was lost, by how often; *closed* are groups that trained on logged",
        "truth alone, as no score came or they had waited for too long. Beyond that, "
        f"{attack.progress.abandoned} of {attack.progress.trained} steps were trained, then abandoned by a group that went back",
        f"to its last checkpoint, and trained again. Started again: {ended}.", "",
        f"Goodput, in steps a second against the job without faults: {soak.rate_under_faults / soak.calm_rate():.0%} while faults "
        "came,", f"{soak.goodput():.0%} over the whole job, which took {soak.wall_s / 60:.1f} minutes. "
        f"Longest time between two faults: {attack.largest_gap_s():.1f} s.", "",
        "## With and without", "", *runs_table(soak), "",
        f"HR@10 on all validation users after the last step. Seeds without faults: mean {mean:.4f}; 95 of 100 further seeds would lie",
        f"within {width:.4f} of it (Student's t over {len(soak.baselines)} seeds). The disturbed run is {soak.soaked.hit_rate - mean:+.4f} "
        "from the mean.", "",
        "## Faults", "", *faults_table(attack), "",
        "The longest time without a trained step from a fault until the first step after the next fault. Faults overlap: one that",
        "comes before the job has recovered from the last counts with it. A step without faults takes "
        f"{1 / soak.calm_rate():.1f} s. Scores that are", "the same for all or another item's have every mark of good ones: what was "
        "trained on them until the canary noticed is in HR@10", "above.", ""])


def main():
    parser = argparse.ArgumentParser(prog="./sluice proof soak", description="Break a running job for a while, and look.")
    parser.add_argument("--minutes", type=float, default=30, help="of faults (default: 30)")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule and of the job (default: 1)")
    parser.add_argument("--steps", type=int, help=f"of the job, which must outlast the faults (default: {STEPS_A_MINUTE} a minute)")
    parser.add_argument("--baselines", type=int, default=4, help="seeds without faults, 2 to 10 (default: 4)")
    parser.add_argument("--weights", choices=("grpc", "gloo"), default="grpc", help="how weights get to actors (default: grpc)")
    parser.add_argument("--page", default=PAGE, help="where to write it (default: docs/proof/soak.md)")
    args = parser.parse_args()
    if args.minutes <= 0:
        parser.error("--minutes: want more than 0")
    if not 2 <= args.baselines <= 10:
        parser.error("--baselines: want 2 to 10")
    os.chdir(harness.TOP)
    with supervise.Ground(os.path.join(harness.TOP, ".sluice", "proof", "soak")) as ground:
        soak = Soak(args, ground)
        soak.run()
    text = page(soak)
    with open(args.page, "w", encoding="utf-8") as file:
        file.write(text)
    print(text)
    return 1 if soak.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
