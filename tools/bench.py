#!/usr/bin/env python3
"""./sluice bench: runs the benchmarks and writes their results, or compares Sluice with Hugging Face's transformers.

Python's standard library alone; what it starts is built or installed by ./sluice before. Results go to build/bench/ as
JSON and as a markdown table. docs/benchmarks.md explains them.
"""

import argparse
import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bench_compare  # noqa: E402
import bench_report  # noqa: E402
import demo  # noqa: E402
from bench_report import TOP, Failure  # noqa: E402

LIMIT_SECONDS = 15 * 60
REPETITIONS = 3
MIN_TIME = 0.2
PER_SECOND = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}


def collect(binary, document):
    """The benchmarks in one google-benchmark JSON document, in seconds, each with the spread over its repetitions."""
    found = {}
    for entry in document["benchmarks"]:
        if entry.get("error_occurred"):
            raise Failure(f"{binary}: {entry['name']} failed: {entry.get('error_message', 'no reason given')}", 1)
        if entry.get("run_type", "iteration") == "iteration":
            found.setdefault(entry.get("run_name", entry["name"]), []).append(entry)
    benchmarks = []
    for name, runs in found.items():
        result = {"name": f"{binary}: {name}"}
        for kind in ("real", "cpu"):
            result[kind] = bench_report.spread([run[f"{kind}_time"] / PER_SECOND[run["time_unit"]] for run in runs])
        known = {"name", "run_name", "run_type", "family_index", "per_family_instance_index", "repetitions",
                 "repetition_index", "threads", "iterations", "real_time", "cpu_time", "time_unit", "label"}
        counters = {key: bench_report.spread([run[key] for run in runs]) for key, value in runs[0].items()
                    if key not in known and isinstance(value, (int, float)) and all(key in run for run in runs)}
        if counters:
            result["counters"] = counters
        benchmarks.append(result)
    return benchmarks


def result_lines(benchmarks):
    rows = []
    for entry in benchmarks:
        counters = ", ".join(f"{key} {bench_report.count_text(s['median'])}" for key, s in entry.get("counters", {}).items())
        rows.append([entry["name"], bench_report.seconds_text(entry["cpu"]), bench_report.seconds_text(entry["real"]),
                     entry["cpu"]["n"], counters or "-"])
    return bench_report.table(["benchmark", "CPU time: median (min to max)", "wall time", "repetitions",
                               "medians of what it counts"], rows)


def run_binaries(passed, limit):
    """Runs every benchmark binary; its benchmarks."""
    binaries = sorted(glob.glob(os.path.join(TOP, "build", "benchmarks", "*_benchmark")))
    if not binaries:
        raise Failure("no benchmark was built into build/benchmarks/", 3)
    options = list(passed)
    for name, value in (("--benchmark_repetitions", REPETITIONS), ("--benchmark_min_time", MIN_TIME)):
        if not any(option.split("=")[0] == name for option in passed):
            options.append(f"{name}={value}")
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", "1")
    deadline = time.monotonic() + limit
    benchmarks = []
    with tempfile.TemporaryDirectory() as folder:
        for binary in binaries:
            name = os.path.basename(binary).removesuffix("_benchmark")
            print(f"== {name}", flush=True)
            out = os.path.join(folder, name + ".json")
            try:
                status = subprocess.run([binary, *options, f"--benchmark_out={out}", "--benchmark_out_format=json"],
                                        env=environment, stdin=subprocess.DEVNULL, preexec_fn=demo.die_with_parent,
                                        timeout=max(1, deadline - time.monotonic())).returncode
            except subprocess.TimeoutExpired:
                raise Failure(f"{name} was still running when the limit of {limit} s for all benchmarks was over; a "
                              "--benchmark_filter leaves some out, --limit gives more time", 11) from None
            if status != 0:
                raise Failure(f"{name} ended with exit code {status}; its output is above", 1)
            # A filter that nothing in this binary matches leaves an empty file.
            if os.path.isfile(out) and os.path.getsize(out) > 0:
                with open(out, encoding="utf-8") as file:
                    benchmarks += collect(name, json.load(file))
    if not benchmarks:
        raise Failure("no benchmark was run: does the filter match any?", 2)
    return benchmarks


def main():
    parser = argparse.ArgumentParser(
        prog="./sluice bench", allow_abbrev=False,
        description="Build and run the benchmarks, or compare Sluice with Hugging Face's transformers.",
        epilog="Options that start with --benchmark_ go to each benchmark binary, e.g. --benchmark_filter=Trie.")
    parser.add_argument("--compare", choices=("hf",), help="run the same work in transformers, in turn, and print ratios")
    parser.add_argument("--baseline", metavar="FILE", help="an earlier result (JSON): print changes and their noise")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, metavar="SECONDS",
                        help="for all benchmarks together (default 900)")
    bench_compare.add_arguments(parser)
    arguments, passed = parser.parse_known_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for option in passed:
            if arguments.compare or not option.startswith("--benchmark_"):
                raise Failure(f"cannot take the argument {option}; ./sluice bench --help lists the options", 2)
        before = bench_report.read_results(arguments.baseline) if arguments.baseline else None
        if arguments.compare:
            after = bench_compare.run(arguments)
        else:
            facts = bench_report.context(os.environ.get("OMP_NUM_THREADS", "1"))
            benchmarks = run_binaries(passed, arguments.limit)
            lines = ["# Benchmarks", "", *bench_report.context_lines(facts), "", *result_lines(benchmarks)]
            bench_report.write_results(os.path.join(TOP, "build", "bench", "benchmarks"),
                                       {**facts, "benchmarks": benchmarks}, lines)
            after = {entry["name"]: entry for entry in benchmarks}
        if before is not None:
            print("\n" + "\n".join(bench_report.baseline_lines(before, after)))
    except Failure as failure:
        print(f"\nsluice: {failure}", file=sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        print("\nsluice: stopped on request.", file=sys.stderr)
        return 12
    return 0


if __name__ == "__main__":
    sys.exit(main())
