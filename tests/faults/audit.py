#!/usr/bin/env python3
"""An auditor of runs: what became of every prompt that a job issued. Standard library alone; shares no code with Sluice.

    python3 tests/faults/audit.py RUN_FOLDER --data DATA [--journal FILE_OR_FOLDER ...] [--compare OTHER_RUN_FOLDER] [-o json]

It reads what a run leaves behind and holds one against the other: the ledgers of its last checkpoint (docs of the format:
learner/ledger/ledger.h), the terminal table (learner/ledger/terminal_table.h), its recorded groups if `rl.record` was on (docs/record.md), results.json and the data set. It
reports

    expected    ordinals that the job issued
    trained     became terminal in a training step, of which dropped, failed and cancelled by count
    lost        issued, but neither terminal nor open, or of a trained step and not recorded
    duplicated  terminal or recorded more than once
    unexpected  terminal or recorded, but never issued, or made of an event that the data set does not train on
    wasted      attempts beyond the first of recorded groups, and how many groups took how many
    closed      groups that trained without scores for an operational reason, by reason
    prompts     shares of the recorded targets by popularity, in the quarters of what was to be drawn from; a prompt that a
                pass has more often than the data set does is a contradiction
    skew        mean popularity of the targets: recorded, of groups that took several attempts, of what was to be drawn from

With the journals of all actors of the run (docs/journal.md; `sluice-actor --journal`), wasted is what they sampled and the
run did not train, by reason, and it is

    unsent      recorded, but no actor ever sent that attempt. Where a journal has gaps (a full disk, files
                removed as they were many) this cannot be known, and is said instead of counted.

and ends with 1 if lost, duplicated, unexpected or unsent is not empty, or if two numbers contradict each other; with 2 if there is
nothing to audit. --compare: digests of parameters and moments, the terminal ordinals, and the terminal tables, of both
runs.
"""

import argparse
import array
import bisect
import collections
import glob
import hashlib
import json
import os
import re
import struct
import sys

MAGIC = b"SLUICEGR"
RECORD_VERSION = 1
TRAIN, RESERVED = 0, 3      # labels of events that a job may train on
SHOWN = 10                  # ordinals that a line names
QUARTERS = 4
OPERATIONAL = ("stale", "reward_unavailable", "unsampled", "catalog_changed")  # gate reasons that are nobody's choice


JOURNAL_FORMAT = 1
CHECK = re.compile(r'^(.*),"check":"([0-9a-f]{8})"}$')


class Unreadable(Exception):
    """There is nothing to audit, in words."""


def read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: {error}") from None


def read_npy(path):
    """A one-dimensional array of small integers."""
    with open(path, "rb") as file:
        content = file.read()
    header_bytes = struct.unpack_from("<H", content, 8)[0]
    header = content[10:10 + header_bytes].decode()
    kind = re.search(r"'descr': '([^']+)'", header).group(1)
    values = array.array({"<i4": "i", "<i8": "q", "|u1": "B"}[kind])
    values.frombytes(content[10 + header_bytes:])
    return values


class Data:
    """The events that a job may make prompts of."""

    def __init__(self, folder):
        if not os.path.isfile(os.path.join(folder, "manifest.json")):
            raise Unreadable(f"there is no prepared data set in {folder}")
        first = read_npy(os.path.join(folder, "first_event.npy"))
        items = read_npy(os.path.join(folder, "event_item.npy"))
        labels = read_npy(os.path.join(folder, "event_split.npy"))
        self.targets = {}        # user -> items that may be targets
        self.places = set()      # (user, position) of every event that may be one
        self.popularity = {}
        self.eligible = []       # (user, target) of every such event
        self.has_reserved = False
        for user in range(len(first) - 1):
            for event in range(first[user], first[user + 1]):
                if labels[event] in (TRAIN, RESERVED):
                    self.has_reserved = self.has_reserved or labels[event] == RESERVED
                    self.popularity[items[event]] = self.popularity.get(items[event], 0) + 1
                    if event > first[user]:
                        self.places.add((user, event - first[user]))
                        self.targets.setdefault(user, set()).add(items[event])
                        self.eligible.append((user, items[event]))
        ordered = sorted(self.popularity[item] for _, item in self.eligible)
        self.bounds = [ordered[len(ordered) * i // QUARTERS] for i in range(1, QUARTERS)] if ordered else []

    def quarters(self, targets):
        """Shares of the targets that are as popular as each quarter of the eligible ones."""
        counts = collections.Counter(bisect.bisect_right(self.bounds, self.popularity.get(item, 0)) for item in targets)
        return [counts[quarter] / len(targets) for quarter in range(QUARTERS)]


class Cursor:
    """Reads the fields of one recorded group up to its attempt."""

    def __init__(self, payload):
        self.payload, self.at = payload, 0

    def take(self, form):
        values = struct.unpack_from("<" + form, self.payload, self.at)
        self.at += struct.calcsize("<" + form)
        return values if len(values) > 1 else values[0]


def read_records(run):
    """[(step, ordinal, user, target, attempt or None)] of all ranks in the order of the files; None without a record."""
    paths = sorted(glob.glob(os.path.join(run, "record", "rank-*.groups")))
    if not paths:
        return None
    groups = []
    for path in paths:
        with open(path, "rb") as file:
            content = file.read()
        at, frames = 0, 0
        while at + 12 <= len(content):
            length = struct.unpack_from("<I", content, at)[0]
            if at + 12 + length + 1 > len(content):
                break  # what a killed process left
            payload = content[at + 12:at + 12 + length]
            if content[at + 12 + length:at + 13 + length] != b"\n":
                raise Unreadable(f"{path}: the frame at byte {at} does not end where it says")
            at += 13 + length
            frames += 1
            if frames == 1:
                if payload[:8] != MAGIC or struct.unpack_from("<I", payload, 8)[0] != RECORD_VERSION:
                    raise Unreadable(f"{path}: not recorded groups of version {RECORD_VERSION}")
                continue
            cursor = Cursor(payload)
            step, _, ordinal, user, target, _ = cursor.take("QQQiii")
            cursor.take(f"{cursor.take('I')}i")           # target tokens
            cursor.take("i")                              # region
            if cursor.take("B"):                          # truth of a generated data set
                cursor.take("B")
            cursor.take("B")                              # bad data
            attempt = cursor.take("I") if cursor.take("B") else None
            groups.append((step, ordinal, user, target, attempt))
    return groups


def last_checkpoint(run):
    """(step, ledgers of its ranks), of the newest one with a manifest; None without ledgers."""
    folders = [folder for folder in sorted(glob.glob(os.path.join(run, "checkpoints", "step-*")))
               if os.path.isfile(os.path.join(folder, "manifest.json")) and not folder.endswith(".tmp")]
    for folder in reversed(folders):
        ledgers = [read_json(path) for path in sorted(glob.glob(os.path.join(folder, "ledger-*.json")))]
        if ledgers:
            return int(folder.rsplit("-", 1)[1]), ledgers
    return None


def read_table(run, step):
    """The terminal table as bytes, as far as the checkpoint of `step` reaches; None if that checkpoint has none."""
    mark = read_json(os.path.join(run, "checkpoints", f"step-{step:08d}", "state.json")).get("table")
    if mark is None:
        return None
    path = os.path.join(run, "ledger.csv")
    try:
        with open(path, "rb") as file:
            content = file.read(mark["bytes"])
    except OSError as error:
        raise Unreadable(f"{path}: {error}") from None
    if len(content) != mark["bytes"] or hashlib.sha256(content).hexdigest() != mark["sha256"]:
        raise Unreadable(f"{path} is not what the checkpoint of step {step} was made with")
    return content


def audit_table(content, data, terminal, report):
    """Holds the table against the ledgers: the same ordinals in the same numbers, each once and in order."""
    seen, states, last = {}, {}, -1
    for line in content.decode().splitlines()[1:]:
        ordinal, user, position, state, reason, step = line.split(",")
        ordinal = int(ordinal)
        seen[ordinal] = seen.get(ordinal, 0) + 1
        states[state] = states.get(state, 0) + 1
        report["reasons"][f"{state}: {reason}"] = report["reasons"].get(f"{state}: {reason}", 0) + 1
        if ordinal < last:
            report["contradictions"].append(f"ledger.csv: ordinal {ordinal} comes after {last}")
        last = ordinal
        if data.places and (int(user), int(position)) not in data.places:
            report["unexpected"].add(ordinal)
            report["foreign"].append(f"ordinal {ordinal}: event {position} of user {user} is no training event")
    report["duplicated"] |= {ordinal for ordinal, times in seen.items() if times > 1}
    report["lost"] |= terminal.keys() - seen.keys()
    report["unexpected"] |= seen.keys() - terminal.keys()
    for state in ("trained", "dropped", "failed", "cancelled"):
        if states.get(state, 0) != report[state]:
            report["contradictions"].append(f"ledger.csv has {states.get(state, 0)} {state}, the ledgers {report[state]}")


class Journals:
    """What the actors of a run say that they did."""

    def __init__(self, paths):
        self.leases = {}      # (job, epoch, lease) -> {(ordinal, attempt): the last thing that became of it}
        self.gaps = []        # why they may be incomplete, in words
        self.damaged = 0
        self.waiting = {}     # folder -> {(ordinal, attempt): its latest lease of that actor}
        files = []
        for path in paths:
            found = [path]
            if os.path.isdir(path):
                found = sorted(glob.glob(os.path.join(path, "**", "journal-*.jsonl"), recursive=True))
            if not found:
                raise Unreadable(f"there is no journal in {path}")
            files += found
        before = {}           # folder -> number of its last file
        for path in files:
            self.read(path, before)

    def read(self, path, before):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read().split("\n")
        except OSError as error:
            raise Unreadable(f"{path}: {error}") from None
        match = re.search(r"-(\d+)\.jsonl$", path)
        if match is None:
            raise Unreadable(f"{path}: want a file named journal-NUMBER.jsonl, as actors write it")
        number = int(match.group(1))
        folder = os.path.dirname(path)
        if number != before.get(folder, 0) + 1:
            self.gaps.append(f"{path} does not follow on file {before.get(folder, 0)}")
        before[folder] = number
        waiting = self.waiting.setdefault(folder, {})
        for line in filter(None, lines):
            match = CHECK.match(line)
            if match is None or hashlib.sha256(match.group(1).encode()).hexdigest()[:8] != match.group(2):
                self.damaged += 1     # what a killed process or a full disk left; a full disk tells how many are missing
                continue
            self.take(path, json.loads(line), waiting)

    def take(self, path, line, waiting):
        event = line["event"]
        if event == "file":
            if line["format"] != JOURNAL_FORMAT:
                raise Unreadable(f"{path}: a journal of format {line['format']}, want {JOURNAL_FORMAT}")
        elif event == "dropped":
            self.gaps.append(f"{path} lacks {line['lines']} lines")
        elif event in ("accepted", "refused"):
            lease = waiting.get(tuple(line["group"]))
            if lease is not None and self.leases[lease].get(tuple(line["group"])) == "sent":
                reason = line.get("reason", "").split(":")[0]
                self.leases[lease][tuple(line["group"])] = event if event == "accepted" else f"refused: {reason}"
        else:
            lease = (line["job"], line["epoch"], line["lease"])
            groups = self.leases.setdefault(lease, {})
            for ordinal, attempt, *_ in line["groups"]:
                if event == "gave_back" and groups.get((ordinal, attempt), "leased") == "leased":
                    continue          # nothing was sampled
                groups[(ordinal, attempt)] = "given back" if event == "gave_back" else event
                if event == "sent":
                    waiting[(ordinal, attempt)] = lease

    def of_job(self, job):
        """{(ordinal, attempt): [(epoch, what became of it), a lease each]} of what was sampled for a job."""
        groups = {}
        for (of, epoch, _), lease in sorted(self.leases.items()):
            for group, fate in lease.items():
                if of == job and fate != "leased":
                    groups.setdefault(group, []).append((epoch, fate))
        return groups

    def jobs(self):
        return sorted({job for job, _, _ in self.leases})


def several(ordinals):
    ordinals = sorted(ordinals)
    text = ", ".join(map(str, ordinals[:SHOWN]))
    return text + (f" and {len(ordinals) - SHOWN} more" if len(ordinals) > SHOWN else "")


def audit_ledgers(ledgers, report):
    terminal, opened = {}, {}
    for rank, ledger in enumerate(ledgers):
        ended = ledger["trained"] + ledger["dropped"] + ledger["failed"] + ledger["cancelled"]
        if ledger["issued"] != ended + len(ledger["open"]):
            report["contradictions"].append(f"ledger of rank {rank}: issued {ledger['issued']}, but {ended} ended and "
                                            f"{len(ledger['open'])} are open")
        mine = 0
        for first, end in ledger["terminal"]:
            mine += end - first
            for ordinal in range(first, end):
                terminal[ordinal] = terminal.get(ordinal, 0) + 1
        if mine != ended:
            report["contradictions"].append(f"ledger of rank {rank}: {mine} ordinals are terminal, its counts say {ended}")
        for ordinal, _ in ledger["open"]:
            opened[ordinal] = opened.get(ordinal, 0) + 1
    issued = sum(ledger["issued"] for ledger in ledgers)
    report["expected"] = issued
    for name in ("trained", "dropped", "failed", "cancelled"):
        report[name] = sum(ledger[name] for ledger in ledgers)
    report["open"] = len(opened)
    report["lost"] |= {o for o in range(issued) if o not in terminal and o not in opened}
    report["duplicated"] |= {o for o, times in terminal.items() if times > 1 or o in opened}
    report["unexpected"] |= {o for o in terminal.keys() | opened.keys() if o >= issued}
    return terminal


def audit_records(groups, data, checkpoint, terminal, report):
    seen, steps = {}, {}
    for step, ordinal, user, target, _ in groups:
        seen[ordinal] = seen.get(ordinal, 0) + 1
        steps.setdefault(step, []).append(ordinal)
        if target not in data.targets.get(user, ()):
            report["unexpected"].add(ordinal)
            report["foreign"].append(f"ordinal {ordinal}: item {target} is no training event of user {user}")
    report["recorded"] = len(groups)
    report["duplicated"] |= {ordinal for ordinal, times in seen.items() if times > 1}
    sizes = {len(set(ordinals)) for ordinals in steps.values()}
    whole = max(sizes, default=0)
    for step in range(max(steps, default=-1) + 1):
        ordinals = set(steps.get(step, ()))
        report["lost"] |= set(range(step * whole, (step + 1) * whole)) - ordinals
        report["unexpected"] |= ordinals - set(range(step * whole, (step + 1) * whole))
    if checkpoint is not None:
        at = checkpoint[0]
        before = {ordinal for step, ordinal, *_ in groups if step < at}
        if not report["cancelled"]:
            report["lost"] |= terminal.keys() - before
            report["unexpected"] |= before - terminal.keys()
    report["tries"] = dict(sorted(collections.Counter(attempt for *_, attempt in groups if attempt).items()))
    report["wasted"] = sum((attempt - 1) * times for attempt, times in report["tries"].items())
    if groups and data.eligible:
        audit_prompts(groups, data, report)


def audit_prompts(groups, data, report):
    """Whether a pass has each prompt once, and whether what is trained is spread as what was to be drawn from."""
    def mean_popularity(targets):
        return sum(data.popularity.get(target, 0) for target in targets) / len(targets)
    targets = [target for *_, target, _ in groups]
    retried = [target for *_, target, attempt in groups if attempt and attempt > 1]
    eligible = [item for _, item in data.eligible]
    report["skew"] = {"target popularity, recorded": mean_popularity(targets)}
    if retried:
        report["skew"]["target popularity, retried"] = mean_popularity(retried)
    report["skew"]["target popularity, of all"] = mean_popularity(eligible)
    report["prompts"] = {"recorded": data.quarters(targets), "of all": data.quarters(eligible)}
    if data.has_reserved:
        return  # which of the events a job draws from is its own choice
    available = collections.Counter(data.eligible)
    drawn = collections.Counter()
    for ordinal, prompt in {ordinal: (user, target) for _, ordinal, user, target, _ in groups}.items():
        if prompt in available:  # others are foreign
            drawn[ordinal // len(data.eligible), prompt] += 1
    for (turn, (user, target)), times in drawn.items():
        if times > available[user, target]:
            report["contradictions"].append(f"pass {turn} has item {target} of user {user} {times} times, the data set "
                                            f"{available[user, target]}")


def closed_groups(run, groups_per_step):
    """Groups that trained without scores for each operational reason, from metrics.jsonl."""
    closed = dict.fromkeys(OPERATIONAL, 0)
    try:
        with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return None
    for row in rows:
        for reason in OPERATIONAL:
            closed[reason] += round(row.get(f"gate/{reason}", 0) * groups_per_step)
    return closed


def audit_journals(groups, run, journals, report):
    """groups: as of read_records; None: there are none, and wasted is only what was not trained by count."""
    jobs = journals.jobs()
    job = os.path.basename(os.path.normpath(run))
    if job not in jobs:
        if len(jobs) != 1:
            raise Unreadable(f"the journals are of the jobs {', '.join(jobs) or '(none)'}, and none of them is named as {run}")
        job = jobs[0]
    sampled = journals.of_job(job)
    report["gaps"] = journals.gaps
    report["sampled"] = sum(map(len, sampled.values()))
    wasted, sent = {}, set()
    trained = {(ordinal, attempt) for _, ordinal, _, _, attempt in groups or () if attempt}
    for group, fates in sampled.items():
        left = [(epoch, fate == "accepted", at) for at, (epoch, fate) in enumerate(fates) if fate in ("accepted", "sent")]
        if left or any(fate.startswith("refused") for _, fate in fates):
            sent.add(group)
        fates = [fate for _, fate in fates]
        if group in trained and left:
            # One of them was trained: of the last epoch, the one that was accepted, or whose answer died with somebody.
            fates.pop(max(left)[2])
        for fate in fates:
            fate = {"accepted": "taken, but its step was not kept", "sent": "sent, no answer",
                    "sampled": "not sent", "scored": "not sent"}.get(fate, fate)
            wasted[fate] = wasted.get(fate, 0) + 1
    if groups is None:
        return
    report["wasted"] = sum(wasted.values())
    report["wasted by reason"] = wasted
    unsent = {ordinal for ordinal, attempt in trained - sent}
    if journals.gaps:
        report["unknown"] = len(unsent)
    else:
        report["unsent"] |= unsent


def audit(run, data_folder, journals=None):
    """The report as a dict. Unreadable: nothing to audit."""
    report = {"run": run, "expected": 0, "trained": 0, "dropped": 0, "failed": 0, "cancelled": 0, "open": 0, "recorded": None,
              "lost": set(), "duplicated": set(), "unexpected": set(), "unsent": set(), "foreign": [], "contradictions": [],
              "wasted": None, "skew": None, "reasons": {}, "tries": {}, "closed": None, "prompts": None}
    data = Data(data_folder)
    checkpoint = last_checkpoint(run)
    groups = read_records(run)
    if checkpoint is None and groups is None:
        raise Unreadable(f"{run} has neither a checkpoint with ledgers nor recorded groups")
    terminal = {}
    if checkpoint is not None:
        report["step"] = checkpoint[0]
        terminal = audit_ledgers(checkpoint[1], report)
        table = read_table(run, checkpoint[0])
        if table is not None:
            audit_table(table, data, terminal, report)
    if groups is not None:
        audit_records(groups, data, checkpoint, terminal, report)
    if report.get("step"):
        report["closed"] = closed_groups(run, (report["trained"] + report["dropped"] + report["failed"]) // report["step"])
    if journals:
        audit_journals(groups, run, Journals(journals), report)
    results = os.path.join(run, "results.json")
    if os.path.exists(results) and checkpoint is not None:
        told = read_json(results)["numbers"].get("ledger", {})
        for name in ("trained", "dropped", "failed"):
            if name in told and told[name] != report[name]:
                report["contradictions"].append(f"results.json says {told[name]:g} {name}, the last checkpoint {report[name]}")
    return report


def clean(report):
    return not any(report[name] for name in ("lost", "duplicated", "unexpected", "unsent", "contradictions"))


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare(one, other):
    """What differs between the last checkpoints of two runs: parameters, moments, terminal ordinals."""
    differences = []
    found = [last_checkpoint(run) for run in (one, other)]
    if None in found or found[0][0] != found[1][0]:
        return ["the runs have no checkpoint of the same step"]
    name = f"step-{found[0][0]:08d}"
    for inside in ("model/model.safetensors", "optimizer.safetensors"):
        paths = [os.path.join(run, "checkpoints", name, inside) for run in (one, other)]
        if digest(paths[0]) != digest(paths[1]):
            differences.append(f"{inside} of {name} differs")
    ended = [sorted(tuple(piece) for ledger in ledgers for piece in ledger["terminal"]) for _, ledgers in found]
    if ended[0] != ended[1]:
        differences.append("other ordinals are terminal")
    tables = [read_table(run, found[0][0]) for run in (one, other)]
    if tables[0] != tables[1]:
        differences.append("the terminal tables differ: other prompts, states, reasons or steps")
    return differences


def text_of(report):
    lines = [f"run         {report['run']}" + (f", checkpoint of step {report['step']}" if "step" in report else ""),
             f"expected    {report['expected']}",
             f"trained     {report['trained']}, dropped {report['dropped']}, failed {report['failed']}, cancelled "
             f"{report['cancelled']}, open {report['open']}"]
    if report["recorded"] is not None:
        tries = ", ".join(f"{times} in {attempt}" for attempt, times in report["tries"].items())
        lines.append(f"recorded    {report['recorded']} groups, wasted {report['wasted']}; attempts: {tries}")
    else:
        lines.append("recorded    nothing: single prompts were not looked at (rl.record)")
    if report["reasons"]:
        lines.append("ended       " + ", ".join(f"{reason} {count}" for reason, count in sorted(report["reasons"].items())))
    for name in ("lost", "duplicated", "unexpected") + (("unsent",) if "sampled" in report else ()):
        lines.append(f"{name:<11} {len(report[name])}" + (f": {several(report[name])}" if report[name] else ""))
    if "sampled" in report:
        reasons = report.get("wasted by reason", {})
        lines.append(f"sampled     {report['sampled']} groups, by the actors' journals; wasted {report['wasted']}"
                     + (": " + ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) if reasons else ""))
        lines += [f"gap         {line}" for line in report["gaps"][:SHOWN]]
        if report["gaps"]:
            lines.append(f"unknown     {report.get('unknown', 0)} recorded groups have no line of being sent")
    lines += [f"foreign     {line}" for line in report["foreign"][:SHOWN]]
    lines += [f"wrong       {line}" for line in report["contradictions"]]
    if report["closed"] is not None:
        lines.append("closed      " + ", ".join(f"{reason} {count}" for reason, count in report["closed"].items()))
    if report["prompts"]:
        lines += [f"prompts     {name}: " + " ".join(f"{share:.3f}" for share in shares)
                  for name, shares in report["prompts"].items()]
    if report["skew"]:
        lines += [f"skew        {name}: {value:.2f}" for name, value in report["skew"].items()]
    return "\n".join(lines + ["verdict     " + ("clean" if clean(report) else "NOT CLEAN")])


def main(argv=None):
    parser = argparse.ArgumentParser(description="What became of every prompt that a job issued.")
    parser.add_argument("run", help="run folder of an rl job")
    parser.add_argument("--data", required=True, help="the data set it was made from")
    parser.add_argument("--journal", nargs="+", metavar="FILE", help="journals of the actors, or folders of them")
    parser.add_argument("--compare", metavar="RUN", help="a run that should have ended in the same state")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    args = parser.parse_args(argv)
    try:
        report = audit(args.run, args.data, args.journal)
        if args.compare:
            report["contradictions"] += compare(args.run, args.compare)
    except Unreadable as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    if args.output == "json":
        print(json.dumps({key: sorted(value) if isinstance(value, set) else value for key, value in report.items()}, indent=1))
    else:
        print(text_of(report))
    return 0 if clean(report) else 1


if __name__ == "__main__":
    sys.exit(main())
