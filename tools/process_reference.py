#!/usr/bin/env python3
"""Writes docs/reference/processes.md: exit codes out of the code, and flags as the built binaries print them.

    python3 tools/process_reference.py [--bin build/bin] [--check]

Python's standard library alone.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(TOP, "docs", "reference", "processes.md")
COMMANDS = (("sluice-learner",), ("sluice-learner", "coordinator"), ("sluice-learner", "rank"),
            ("sluice-learner", "run"), ("sluice-reward",), ("sluice-actor",), ("sluicectl",))

INTRO = """# Processes

Exit codes and flags. Written by `tools/process_reference.py` from `common/status/exit_code.h` and from what the binaries
print; a test fails when this page is out of date. How to run and watch them: [operations.md](../operations.md).

## Exit codes

Of every binary. `sluicectl submit --watch`, `watch` and `wait` end with the job's.

| code | name | meaning | try again? |
| --- | --- | --- | --- |
"""

READY = """
## When a process is ready

Then its health check answers SERVING, and systemd, or who else gave it a `NOTIFY_SOCKET`, hears `READY=1`.

| process | is ready | later |
| --- | --- | --- |
| `sluice-learner coordinator` | its job store is open and its port answers | |
| `sluice-learner rank` | actors may attach; the coordinator need not be there yet | |
| `sluice-reward` | the data set and every ranker are loaded, those outside have scored their golden groups | NOT_SERVING while one of those outside does not |
| `sluice-actor` | it is attached to a rank, whether or not that has a job or a lease for it | NOT_SERVING until it has another, once it loses that |

systemd knows no way back from ready: there `STATUS=` says what a process does. A drain begins with `STOPPING=1`, and a
coordinator's and an actor's with as much time beyond the unit's as `--drain-seconds` and `--drain-timeout` ask for. A socket that cannot
be reached is a warning in the log.
"""

# What a supervisor should do with each.
AGAIN = {"Done": "no", "Failed": "no, look first", "Usage": "no", "Integrity": "no", "Permission": "no",
         "Preempted": "yes, it resumes; not a failure", "Transient": "yes, and count it", "Cancelled": "no",
         "Held": "no, a person decides", "NoSpace": "after making room"}


def exit_codes(header: str) -> list[tuple[int, str, str]]:
    """(code, name, meaning) of the enum, by code."""
    body = re.search(r"enum class ExitCode : int \{(.*?)\};", header, re.DOTALL)
    if body is None:
        raise ValueError("want enum class ExitCode in common/status/exit_code.h")
    found = re.findall(r"k(\w+) = (\d+),(?: *// (.*))?", body.group(1))
    return sorted((int(code), name, meaning or "all went well") for name, code, meaning in found)


def help_text(folder: str, command: tuple[str, ...]) -> str:
    """What --help prints, without the binary's place on this machine."""
    path = os.path.join(folder, command[0])
    answer = subprocess.run([path, *command[1:], "--help"], capture_output=True, text=True, timeout=60,
                            env=dict(os.environ, NO_COLOR="1", COLUMNS="100"))
    if answer.returncode != 0:
        raise ValueError(f"{' '.join(command)} --help ended with {answer.returncode}: {answer.stderr}")
    return re.sub(r"\S*/(?=sluice)", "", answer.stdout).strip()


def page(header: str, folder: str) -> str:
    lines = [f"| {code} | {name} | {meaning} | {AGAIN[name]} |" for code, name, meaning in exit_codes(header)]
    text = INTRO + "\n".join(lines) + "\n" + READY
    for command in COMMANDS:
        shown = "\n".join(line.rstrip() for line in help_text(folder, command).splitlines())
        text += f"\n## {' '.join(command)}\n\n```\n{shown}\n```\n"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the reference of exit codes and flags.")
    parser.add_argument("--bin", default=os.path.join(TOP, "build", "bin"))
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the page is out of date")
    args = parser.parse_args()
    with open(os.path.join(TOP, "common", "status", "exit_code.h"), encoding="utf-8") as file:
        text = page(file.read(), args.bin)
    if args.check:
        with open(PAGE, encoding="utf-8") as file:
            if file.read() == text:
                return 0
        print("docs/reference/processes.md is out of date: run python3 tools/process_reference.py")
        return 1
    os.makedirs(os.path.dirname(PAGE), exist_ok=True)
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
