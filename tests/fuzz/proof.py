#!/usr/bin/env python3
"""Runs every fuzz target for a time and writes docs/proof/fuzz.md. Called by ./sluice proof fuzz.

    ./sluice proof fuzz [--seconds N] [--jobs N] [--only NAME,...]

libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer begins with the corpus in tests/fuzz/corpus. What it finds
beyond stays in .sluice/fuzz/NAME for the next run; the input of a finding lies there too, and its name is printed. A row of
the page is replaced by a run that is as long, or finds something.
"""

import argparse
import concurrent.futures
import datetime
import math
import os
import platform
import re
import subprocess
import sys
import threading

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORPUS = os.path.join(TOP, "tests", "fuzz", "corpus")
BINARIES = os.path.join(TOP, "build", "fuzz", "fuzz")
PAGE = os.path.join(TOP, "docs", "proof", "fuzz.md")
MAX_INPUT_BYTES = 65536
MEMORY_MIB = 2048
SLOW_INPUT_SECONDS = 20


def run_target(name, seconds):
    """(row of the page without its date, whether nothing was found)."""
    work = os.path.join(TOP, ".sluice", "fuzz", name)
    os.makedirs(work, exist_ok=True)
    argv = [os.path.join(BINARIES, f"fuzz_{name}"), work, os.path.join(CORPUS, name),
            f"-max_len={MAX_INPUT_BYTES}", f"-rss_limit_mb={MEMORY_MIB}", f"-timeout={SLOW_INPUT_SECONDS}",
            "-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={work}/finding-"]
    log = os.path.join(TOP, ".sluice", "fuzz", f"{name}.log")
    spent, found = 0.0, False
    with open(log, "w", encoding="utf-8") as file:
        # libFuzzer counts time on the clock, so that on a busy machine one go is not enough.
        while spent < 0.98 * seconds and not found:
            limit = f"-max_total_time={math.ceil(seconds - spent)}"
            process = subprocess.Popen([*argv, limit], stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=work)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            spent += used.ru_utime + used.ru_stime
            found = process.returncode != 0
    with open(log, encoding="utf-8", errors="replace") as file:
        text = file.read()
    runs = sum(int(number) for number in re.findall(r"stat::number_of_executed_units: (\d+)", text))
    covered = re.findall(r"cov: (\d+)", text)
    if found:
        print(f"{name}: FOUND something, exit code {process.returncode}; the end of {log}:\n" +
              "\n".join(text.splitlines()[-15:]), flush=True)
    else:
        print(f"{name}: {runs} inputs, nothing found", flush=True)
    return [name, f"{spent:.0f}", str(runs), covered[-1] if covered else "-",
            "a finding" if found else "none"], not found


def read_page():
    """{target: the cells of its row}."""
    if not os.path.exists(PAGE):
        return {}
    with open(PAGE, encoding="utf-8") as file:
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in file if line.startswith("| ")]
    return {row[0]: row for row in rows if len(row) == 6 and row[1].isdigit()}


def note(names, row, clean):
    """Puts a target's row on the page."""
    rows = read_page()
    old = rows.get(row[0])
    if clean and old is not None and int(row[1]) < 0.98 * int(old[1]):
        print(f"{row[0]}: the page keeps the longer run of {old[5]}", flush=True)
        return
    rows[row[0]] = [*row, str(datetime.date.today())]
    lines = ["# Fuzzing", "",
             "libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer, each target with one process, for so many",
             f"seconds of processor time ({platform.machine()}). `./sluice proof fuzz` runs it and writes this page; tests",
             "`fuzz.*` repeat the corpus and a thousand mutations of it on every test run, and under the sanitizers where",
             "they are cores. Targets `*_calls` call whole servers, and wait for their threads most of the time.", "",
             "| target | CPU s | inputs | edges covered | findings | on |", "| --- | --- | --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(rows.get(name, [name, "-", "-", "-", "not run yet", "-"])) + " |" for name in names]
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def main():
    names = sorted(os.listdir(CORPUS))
    parser = argparse.ArgumentParser(prog="./sluice proof fuzz", description="Run every fuzz target for a time.")
    parser.add_argument("--seconds", type=int, default=600, help="of processor time for each target (default: 600)")
    parser.add_argument("--only", help=f"targets, joined by commas (default: all): {', '.join(names)}")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time (default: 1)")
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error("--jobs: want at least 1")
    if args.seconds < 1:
        parser.error("--seconds: want at least 1")
    chosen = args.only.split(",") if args.only else names
    for name in chosen:
        if name not in names:
            parser.error(f"--only: there is no target {name!r}; want some of {', '.join(names)}")
    page = threading.Lock()

    def run(name):
        row, clean = run_target(name, args.seconds)
        with page:
            note(names, row, clean)
        return clean

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        good = all(list(pool.map(run, chosen)))
    print(f"Page: {os.path.relpath(PAGE, TOP)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
