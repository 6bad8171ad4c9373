#!/usr/bin/env python3
"""Writes docs/reference/metrics.md from what running processes export, so that it says what is there.

    python3 tools/metrics_reference.py [--targets FILE] [--output FILE]

reads the pages of the processes in a targets file (deploy/prometheus/targets.json: those of ./sluice up) and needs one of
each role. tests/deploy/live_test.py does the same with its own processes, and fails if the page is out of date.
Python's standard library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import urllib.request
from dataclasses import dataclass, field

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(TOP, "docs", "reference", "metrics.md")
ROLES = ("coordinator", "rank", "reward", "actor")
TIMEOUT_S = 10
MAX_PAGE_BYTES = 4 << 20

# Labels whose values are not part of the reference: releases come and go, buckets and quantiles are of the type.
OPEN_LABELS = ("version",)
TYPE_LABELS = ("le", "quantile")

# By the end of a name; the first that fits.
UNITS = (("_timestamp_seconds", "seconds since 1970"), ("_start_time_seconds", "seconds since 1970"), ("_seconds", "seconds"),
         ("_bytes", "bytes"), ("_ratio", "ratio, 0 to 1"), ("_nats", "nats"), ("_versions", "policy versions"),
         ("_info", "always 1"), ("_fds", "file descriptors"))

INTRO = """# Metrics

What each process exports at `/metrics` (`--metrics-address`). Written by `tools/metrics_reference.py` from live processes;
`tests/deploy/live_test.py` fails when a metric is missing here or has changed. Names, types and labels are an interface: a
change is a breaking one and stands in the changelog.

A gauge that was not measured is NaN ([decisions/009](../decisions/009-metrics-of-a-job.md)). Every combination of labels
is there from the start, so that rates and increases see the first event. No label carries a job, group, actor or version of
weights. *rank* is `sluice-learner rank` and, with the same metrics, `sluice-learner run`. Where each one is shown:
[dashboards](../../deploy/grafana), [alerts](../runbooks/README.md).
"""


@dataclass
class Family:
    name: str
    type: str = ""
    help: str = ""
    roles: list[str] = field(default_factory=list)
    labels: dict[str, set[str]] = field(default_factory=dict)


def parse(page: str) -> dict[str, Family]:
    """The families of a page in Prometheus' text format, by name."""
    families: dict[str, Family] = {}
    for line in page.splitlines():
        comment = re.match(r"# (HELP|TYPE) (\S+) (.*)", line)
        if comment:
            family = families.setdefault(comment.group(2), Family(comment.group(2)))
            setattr(family, comment.group(1).lower(), comment.group(3))
            continue
        sample = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$", line)
        if not sample:
            continue
        name = sample.group(1)
        if name not in families:
            name = re.sub(r"_(bucket|sum|count)$", "", name)
        if name not in families:
            raise ValueError(f"a sample of {name}, which has neither TYPE nor HELP: {line}")
        for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', sample.group(2) or ""):
            families[name].labels.setdefault(label, set()).add(value)
    return families


def merge(pages: dict[str, str]) -> list[Family]:
    """One family a name over the pages of all roles, sorted. A name means the same wherever it is exported."""
    merged: dict[str, Family] = {}
    for role in sorted(pages, key=ROLES.index):
        for name, family in parse(pages[role]).items():
            known = merged.setdefault(name, family)
            if known.type != family.type:
                raise ValueError(f"{name} is a {known.type} of {known.roles} and a {family.type} of {role}")
            if family.help not in known.help.split(" / "):
                known.help += f" / {family.help}"
            known.roles.append(role)
            for label, values in family.labels.items():
                known.labels.setdefault(label, set()).update(values)
    return [merged[name] for name in sorted(merged)]


def unit(family: Family) -> str:
    base = family.name[:-len("_total")] if family.name.endswith("_total") else family.name
    for end, text in UNITS:
        if base.endswith(end):
            return text
    return "count" if family.type == "counter" else "number"


def labels_text(family: Family) -> str:
    parts = []
    for label in sorted(family.labels):
        if label in TYPE_LABELS:
            continue
        values = "" if label in OPEN_LABELS else ": " + ", ".join(sorted(family.labels[label]))
        parts.append(f"`{label}`{values}")
    return "; ".join(parts) or "-"


def reference(pages: dict[str, str]) -> str:
    """The text of docs/reference/metrics.md."""
    missing = [role for role in ROLES if role not in pages]
    if missing:
        raise ValueError(f"want a page of each role, got none of {', '.join(missing)}")
    lines = [INTRO, "| name | type | labels | unit | processes | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for family in merge(pages):
        roles = "all" if len(family.roles) == len(ROLES) else ", ".join(family.roles)
        help_text = family.help.replace("|", "\\|")
        lines.append(f"| `{family.name}` | {family.type} | {labels_text(family)} | {unit(family)} | {roles} | {help_text} |")
    return "\n".join(lines) + "\n"


def names_in(page: str) -> set[str]:
    """The metrics of a written reference."""
    return set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


def fetch(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=TIMEOUT_S) as answer:
        return answer.read(MAX_PAGE_BYTES).decode()


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the reference of metrics from running processes.")
    parser.add_argument("--targets", default=os.path.join(TOP, "deploy", "prometheus", "targets.json"))
    parser.add_argument("--output", default=PAGE)
    args = parser.parse_args()
    with open(args.targets, encoding="utf-8") as file:
        groups = json.load(file)
    try:
        pages = {group["labels"]["role"]: fetch(group["targets"][0]) for group in groups}
        text = reference(pages)
    except (OSError, ValueError) as error:
        print(f"metrics_reference: {error}. Is ./sluice up running, with a job behind it?", file=sys.stderr)
        return 1
    os.makedirs(os.path.dirname(args.output), exist_ok=True)
    with open(args.output, "w", encoding="utf-8") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
