#!/usr/bin/env python3
"""Runs fault experiments and prints a table of their verdicts. `./sluice faults` builds first and then calls this.

    ./sluice faults [NN...] [--seed N] [--thorough] [--list] [--jobs N]

NN are numbers of experiments; without any, all run. Each is a program of its own (tests/faults/NN_name.py), whose output
goes to .sluice/faults/NN_name.log; the table, as JSON, to .sluice/faults/<date>.json. A "known" verdict is a fault of
the product that is known and still shows; it is printed and does not fail the run. Exit code 1 if one failed.
"""

import argparse
import concurrent.futures
import datetime
import glob
import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
SKIP = 77
LIMIT_S, THOROUGH_LIMIT_S = 600, 4 * 3600


def programs():
    """{number: path}, in order."""
    found = {}
    for path in sorted(glob.glob(os.path.join(HERE, "[0-9][0-9]_*.py"))):
        found[int(os.path.basename(path)[:2])] = path
    return found


def name_of(path):
    return os.path.basename(path)[3:-3].replace("_", " ")


def about(path):
    """First sentence of its docstring."""
    with open(path, encoding="utf-8") as file:
        text = re.search(r'"""(.*?)"""', file.read(), re.S).group(1)
    return " ".join(text.split()).split(". ")[0].rstrip(".")


def closing_line(text):
    for line in reversed(text.splitlines()):
        if line.startswith('{"experiment"'):
            return json.loads(line)
    return None


def run_one(path, seed, thorough, folder):
    """The closing object of one experiment, with `seconds` and `log`."""
    log = os.path.join(folder, os.path.basename(path)[:-3] + ".log")
    command = [sys.executable, "-B", path, "--seed", str(seed), *(["--thorough"] if thorough else [])]
    started = time.monotonic()
    with open(log, "w", encoding="utf-8") as file:
        try:
            code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                                  timeout=THOROUGH_LIMIT_S if thorough else LIMIT_S).returncode
        except subprocess.TimeoutExpired:
            code = None  # its processes die with it
    with open(log, encoding="utf-8", errors="replace") as file:
        said = closing_line(file.read())
    if said is None:
        said = {"experiment": os.path.basename(path)[:-3], "verdict": "failed", "seed": seed, "recovery_s": None, "audit": {},
                "detail": "it hung" if code is None else f"it ended with {code} and no closing line"}
    said.update(seconds=round(time.monotonic() - started, 1), log=os.path.relpath(log, TOP))
    return said


def row_of(result):
    recovery = "-" if result["recovery_s"] is None else f"{result['recovery_s']:.1f}"
    number, name = result["experiment"].split("_", 1)
    return f"{number}  {name.replace('_', ' '):<30} {result['verdict']:<8} {recovery:>8} {result['seconds']:>8.1f}"


def show(result):
    print(row_of(result), flush=True)
    if result["verdict"] != "held":
        print(f"      {result['detail']}", flush=True)
    if result["verdict"] == "failed":
        print(f"      see {result['log']}; again: ./sluice faults {int(result['experiment'][:2])} --seed {result['seed']}",
              flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="./sluice faults", description="Breaks things, and looks at what the promise was worth "
                                     "(docs/guarantees.md).")
    parser.add_argument("numbers", nargs="*", type=int, metavar="NN", help="experiments to run; default: all")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn at random; the same seed draws the same")
    parser.add_argument("--thorough", action="store_true", help="more instants, bytes and messages: minutes to hours")
    parser.add_argument("--list", action="store_true", help="name the experiments and run none")
    parser.add_argument("--jobs", type=int, default=1, help="experiments at the same time")
    args = parser.parse_args(argv)
    known = programs()
    if args.list:
        for number in sorted(known):
            print(f"{number:02d}  {name_of(known[number]):<30} {about(known[number])}")
        return 0
    for number in args.numbers:
        if number not in known:
            parser.error(f"there is no experiment {number}: ./sluice faults --list names them")
    chosen = [known[number] for number in args.numbers or sorted(known)]
    folder = os.path.join(TOP, ".sluice", "faults")
    os.makedirs(folder, exist_ok=True)
    print(f"seed {args.seed}, {'thorough' if args.thorough else 'quick'}\n"
          f"nr  {'experiment':<30} {'verdict':<8} {'recovery':>8} {'seconds':>8}", flush=True)
    results = []
    with concurrent.futures.ThreadPoolExecutor(max(1, args.jobs)) as pool:
        for done in concurrent.futures.as_completed(
                [pool.submit(run_one, path, args.seed, args.thorough, folder) for path in chosen]):
            results.append(done.result())
            show(results[-1])
    results.sort(key=lambda result: result["experiment"])
    summary = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "seed": args.seed,
               "thorough": args.thorough, "results": results}
    path = os.path.join(folder, summary["date"].replace(":", "").replace("+0000", "Z") + ".json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
    counts = {verdict: sum(r["verdict"] == verdict for r in results) for verdict in ("held", "known", "skipped", "failed")}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) + f"; {os.path.relpath(path, TOP)}")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
