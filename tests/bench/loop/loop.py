#!/usr/bin/env python3
"""What overlap buys: the whole loop with staleness 2 and without (0), as real processes, and where the time goes.

    python3 tests/bench/loop/loop.py [--steps 24] [--cores 1] [--out FILE]

Coordinator, one rank, reward server and one actor on loopback; 64 prompts x 16 beams a step, a model of 1.25 million
parameters (S), histories of at most 20 items as users come, the objective as an rl job has it by default. Groups trained
a second are those of the job's own metrics, after the first steps. The answer is one JSON document; --out writes it to a
file, too. The same loop beside one of transformers: ./sluice bench --compare hf --rows loop.

Needs a build (./sluice build) and Python's standard library alone. Leaves nothing behind.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 3))
sys.path.insert(0, os.path.join(TOP, "tools"))
import bench_compare  # noqa: E402
import bench_loop  # noqa: E402
import bench_report  # noqa: E402
import demo  # noqa: E402

GROUPS, GROUP_SIZE, HISTORY = 64, 16, 20
MODEL = {"hidden_size": 128, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 32, "intermediate_size": 512}


def run_job(place, data, staleness, arguments):
    """One job on processes of its own."""
    name = f"staleness-{staleness}"
    folder = os.path.join(place, name)
    os.makedirs(folder)
    spec = os.path.join(folder, "rl.yaml")
    bench_loop.write_json(spec, {  # JSON is YAML too
        "kind": "rl", "name": name, "data": data, "model": {**MODEL, "encoder": arguments.encoder},
        "rl": {"steps": arguments.steps, "groups_per_step": GROUPS, "group_size": GROUP_SIZE, "staleness": staleness,
               "reward": {"ranker": "cooccurrence"}, "validation": {"every": 0, "users": 10, "beams": 10}},
        "checkpoint": {"every": 0}})
    log = os.path.join(folder, "submit.log")
    with demo.Cluster(folder, data, ranks=1, actors=1) as cluster:
        with open(log, "w", encoding="utf-8") as file:
            submit = demo.start([os.path.join(demo.BIN, "sluicectl"), "submit", spec, "--watch", "--server",
                                 cluster.server], stdout=file, stderr=file)
        try:
            code = submit.wait(bench_loop.STEP_SECONDS * arguments.steps)
        except subprocess.TimeoutExpired:
            raise demo.Failure(f"{name} did not end after {bench_loop.STEP_SECONDS} s a step", 11) from None
        finally:
            demo.stop(submit)
        if code != 0:
            raise demo.Failure(f"{name} failed with exit code {code}:\n{demo.tail(log)}", 1)
        cpu = {role: bench_loop.cpu_seconds(process.pid) for role, process, _ in cluster.processes}
    runs = os.path.join(folder, "runs")
    steps = bench_loop.lines_of(os.path.join(runs, os.listdir(runs)[0], "metrics.jsonl"))
    rows = [steps[step] for step in range(arguments.warm, arguments.steps + 1)]
    between = [after["time_s"] - before["time_s"] for before, after in zip(rows, rows[1:])]
    seconds = sum(between)
    return {
        "staleness": staleness, "groups_per_second": len(between) * GROUPS / seconds,
        "step_seconds": bench_report.spread(between),
        # Of that time: waiting for groups, and judging, updating and publishing.
        "wait_share": sum(row["seconds/wait"] for row in rows[1:]) / seconds,
        "train_share": sum(row["seconds/train"] for row in rows[1:]) / seconds,
        "mean_staleness": statistics.mean(row.get("staleness/mean", 0) for row in rows[1:]),
        # Of the whole life of each process, over all groups: starting up is in it.
        "cpu_ms_per_group": {role: 1000 * spent / (arguments.steps * GROUPS) for role, spent in cpu.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=24, help="optimizer steps of each job (default 24)")
    parser.add_argument("--warm", type=int, default=4, help="steps at the start that are not counted (default 4)")
    parser.add_argument("--staleness", type=int, action="append", help="which jobs (default 2 and 0)")
    parser.add_argument("--encoder", choices=("codes", "merged"), default="codes",
                        help="a history item as its four codes, as the comparison has it (default), or as one position")
    parser.add_argument("--cores", type=int, default=0, help="give all processes together this many cores (default all)")
    parser.add_argument("--data", help="folder with inter.json and index_rqvae.json (default: Beauty, ML-100K or synthetic)")
    parser.add_argument("--out", help="write the JSON document here, too")
    arguments = parser.parse_args()
    if not 1 <= arguments.warm < arguments.steps:
        parser.error(f"want 1 <= --warm < --steps, got {arguments.warm} and {arguments.steps}")
    cores = sorted(os.sched_getaffinity(0))
    if arguments.cores:
        cores = cores[:arguments.cores]
        os.sched_setaffinity(0, cores)
    place = tempfile.mkdtemp(prefix="sluice-loop-")
    report = sys.stdout
    sys.stdout = sys.stderr  # the table of processes
    try:
        events = bench_compare.read_events(arguments.data)
        data = bench_loop.prepare(events, os.path.join(place, "prepared"), HISTORY)
        runs = [run_job(place, data, staleness, arguments) for staleness in arguments.staleness or (2, 0)]
    except demo.Failure as failure:
        print(f"loop: {failure}", file=sys.stderr)
        return failure.code
    finally:
        sys.stdout = report
        shutil.rmtree(place, ignore_errors=True)
    lengths = [min(position, HISTORY) for items in events.users for position in range(1, len(items) - 2)]
    text = json.dumps({**bench_report.context("1"), "data": events.name, "model": "S", "history": HISTORY,
                       "mean_prompt_items": statistics.mean(lengths), "encoder": arguments.encoder, "cores": len(cores),
                       "groups_per_step": GROUPS, "group_size": GROUP_SIZE, "steps": arguments.steps,
                       "warm": arguments.warm, "runs": runs}, indent=1)
    print(text)
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
