"""Our side of the comparison's row `loop`: whole rl jobs on real processes, timed between two of their steps.

One actor, one learner rank, coordinator and reward server on loopback, as ./sluice up starts them. A sample is one job;
what it takes to start and to end is left out by reading its step lines in between.
"""

import json
import os
import shutil
import subprocess
import time

import bench_report
import demo
from bench_report import Failure

STEPS = 24
FIRST, LAST = 4, 20  # steps that are timed: the actor is equally far ahead at both ends
GROUPS = 64
STEP_SECONDS = 60    # a step that takes longer means that the job hangs
PREPARE_SECONDS = 300


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def prepare(events, place, history):
    """A data set folder of `events`, with a sequential ranker trained for a moment: its scores are never all equal, so
    that no completion drops out of the update."""
    folder = os.path.join(place, "data")
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    write_json(os.path.join(place, "events.json"), {str(u): items for u, items in enumerate(events.users)})
    write_json(os.path.join(place, "index.json"), {str(i): codes for i, codes in enumerate(events.sids)})
    spec = os.path.join(place, "prepare.yaml")
    with open(spec, "w", encoding="utf-8") as file:
        file.write(f"""name: loop
kind: prepare
prepare:
  events: {json.dumps(os.path.join(place, "events.json"))}
  output: {json.dumps(folder)}
  min_user_events: 1
  min_item_events: 1
  max_history: {history}
  sids:
    index: {json.dumps(os.path.join(place, "index.json"))}
    codes: {events.codes}
    unique_level: false
  ranker:
    passes: 1
    time_limit_s: 10
""")
    with open(os.path.join(place, "prepare.log"), "w", encoding="utf-8") as log:
        status = subprocess.run([os.path.join(demo.BIN, "sluice-learner"), "run", spec, "--run-folder",
                                 os.path.join(place, "prepare")], stdout=log, stderr=log, timeout=PREPARE_SECONDS)
    if status.returncode != 0:
        raise Failure(f"prepare failed:\n{demo.tail(log.name)}", 3)
    return folder


def spec_text(data, model):
    """The job: like TRL's step, all completions with their advantages over the full vocabulary, and the NLL beside."""
    return f"""name: loop
kind: rl
data: {json.dumps(data)}
model:
  path: {json.dumps(model)}
rl:
  steps: {STEPS}
  groups_per_step: {GROUPS}
  group_size: 16
  objective: mixture
  negative_weight: 1
  target_in_group: false
  grpo_space: full
  reward:
    ranker: sequential
  optimizer:
    learning_rate: 0.00001
  validation:
    every: 0
    users: 10
    beams: 10
checkpoint:
  every: 0
"""


def cpu_seconds(pid):
    """User and system time of a process so far."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return int(bench_report.first_match(r"^VmHWM:\s+(\d+)", file.read(), "0")) / 1024


def lines_of(path):
    """The whole lines of a job's metrics so far, by step."""
    found = {}
    for line in bench_report.read_text(path).split("\n")[:-1]:
        fields = json.loads(line)
        if "gradient_norm" in fields:
            found[fields["step"]] = fields
    return found


class Loop:
    """The processes; `sample` runs one job on them. Pinned to as many cores as the other side has threads."""

    def __init__(self, place, data, model, threads):
        self.place = place
        shutil.rmtree(os.path.join(place, "runs"), ignore_errors=True)
        shutil.rmtree(os.path.join(place, "state"), ignore_errors=True)
        self.spec = os.path.join(place, "rl.yaml")
        with open(self.spec, "w", encoding="utf-8") as file:
            file.write(spec_text(data, model))
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, set(sorted(before)[:threads]))
        self.cluster = demo.Cluster(place, data, ranks=1, actors=1)
        try:
            self.cluster.__enter__()
        finally:
            os.sched_setaffinity(0, before)

    def close(self):
        self.cluster.__exit__()

    def pids(self):
        return [process.pid for _, process, _ in self.cluster.processes]

    def metrics_of_new_run(self, known, deadline):
        runs = os.path.join(self.place, "runs")
        while time.monotonic() < deadline:
            made = set(os.listdir(runs)) - known if os.path.isdir(runs) else set()
            if made:
                return os.path.join(runs, made.pop(), "metrics.jsonl")
            time.sleep(0.01)
        raise Failure(f"no run folder came up in {runs}", 11)

    def wait_for(self, path, step):
        """CPU seconds of all processes when the line of `step` was there."""
        deadline = time.monotonic() + STEP_SECONDS * LAST
        while time.monotonic() < deadline:
            self.cluster.check()
            if step in lines_of(path):
                return sum(map(cpu_seconds, self.pids()))
            time.sleep(0.01)
        raise Failure(f"step {step} did not come: {path}", 11)

    def sample(self, busy_seconds):
        runs = os.path.join(self.place, "runs")
        known = set(os.listdir(runs)) if os.path.isdir(runs) else set()
        log = os.path.join(self.place, "submit.log")
        with open(log, "w", encoding="utf-8") as file:
            submit = demo.start([os.path.join(demo.BIN, "sluicectl"), "submit", self.spec, "--watch", "--server",
                                 self.cluster.server], stdout=file, stderr=file)
        try:
            path = self.metrics_of_new_run(known, time.monotonic() + STEP_SECONDS)
            first, busy = self.wait_for(path, FIRST), busy_seconds()
            last, busy = self.wait_for(path, LAST), busy_seconds() - busy
            if submit.wait(STEP_SECONDS) != 0:
                raise Failure(f"the rl job failed:\n{demo.tail(log)}", 1)
        finally:
            demo.stop(submit)
        steps = lines_of(path)
        window = [steps[step] for step in range(FIRST + 1, LAST + 1)]
        wall, cpu = steps[LAST]["time_s"] - steps[FIRST]["time_s"], last - first
        return {"wall": wall / len(window), "cpu": cpu / len(window), "calls": len(window),
                "others": max(0.0, (busy - cpu) / wall), "peak_mib": sum(map(peak_mib, self.pids())),
                "unsampled": sum(line["gate/unsampled"] for line in window),
                "zero_advantage": sum(line["group/zero_advantage_share"] for line in window) / len(window)}
