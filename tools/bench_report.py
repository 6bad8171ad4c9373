"""What the benchmark tools share: facts of the machine and the versions, spreads, tables and result files."""

import json
import os
import re
import statistics
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Failure(Exception):
    """Ends the run with a sentence for people and an exit code."""

    def __init__(self, sentence, code=1):
        super().__init__(sentence)
        self.code = code


def first_match(pattern, text, otherwise="unknown"):
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1).strip() if match else otherwise


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def output_of(*command):
    try:
        answer = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def machine():
    kib = int(first_match(r"^MemTotal:\s+(\d+)", read_text("/proc/meminfo"), "0"))
    return {"cpu": first_match(r"^model name\s*:\s*(.*)$", read_text("/proc/cpuinfo")),
            "cores": os.cpu_count(), "memory_gib": round(kib / 1024 / 1024, 1), "system": os.uname().release}


def versions():
    commit = output_of("git", "rev-parse", "--short=12", "HEAD") or "unknown"
    if output_of("git", "status", "--porcelain", "--untracked-files=no"):
        commit += " with changes"
    cache = read_text(os.path.join(TOP, "build", "CMakeCache.txt"))
    compiler = first_match(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", cache, "c++")
    return {"commit": commit, "torch": first_match(r"^torch==(\S+)", read_text(os.path.join(TOP, "requirements.txt"))),
            "compiler": output_of(compiler, "--version").split("\n")[0] or "unknown"}


def context(threads):
    return {"time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "machine": machine(), "versions": versions(),
            "threads": threads, "load_average": [round(x, 2) for x in os.getloadavg()]}


def context_lines(facts):
    """The same for people, as the head of a markdown file."""
    m, v = facts["machine"], facts["versions"]
    return [f"{facts['time']}; {m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB; Linux {m['system']}.",
            f"Commit {v['commit']}; torch {v['torch']}; {v['compiler']}. "
            f"Threads: {facts['threads']}; load average at the start {', '.join(map(str, facts['load_average']))}."]


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "n": len(values)}


def figure(value):
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - int(f"{abs(value):e}".split("e")[1]))
    return f"{value:,.{digits}f}".replace(",", " ")


def spread_text(s, unit=""):
    return f"{figure(s['median'])}{unit} ({figure(s['min'])} to {figure(s['max'])})"


def seconds_text(s):
    """A spread of seconds in the unit that suits its median."""
    unit, factor = next(((unit, factor) for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6))
                         if s["median"] * factor >= 1), ("ns", 1e9))
    return spread_text({key: value * factor if key != "n" else value for key, value in s.items()}) + " " + unit


def count_text(value):
    """A figure with a thousand, million or milliard after it."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * factor:
            return f"{figure(value / factor)} {letter}"
    return figure(value)


def table(head, rows):
    """A markdown table; the first column is text, the others numbers."""
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def write_results(prefix, document, lines):
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    for suffix, text in ((".json", json.dumps(document, indent=1) + "\n"), (".md", "\n".join(lines) + "\n")):
        with open(prefix + suffix + ".tmp", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(prefix + suffix + ".tmp", prefix + suffix)
    print(f"\nWritten: {os.path.relpath(prefix, TOP)}.json and .md")


def read_results(path):
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        return {entry["name"]: entry for entry in document["benchmarks"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"cannot read the benchmark results in {path}: {error!r}; want a file that ./sluice bench wrote",
                      3) from None


def verdict(before, after):
    """Change of the medians in percent, and whether it is more than noise: the two ranges do not overlap."""
    change = 100 * (after["median"] / before["median"] - 1) if before["median"] else 0.0
    if min(before["n"], after["n"]) < 2:
        return change, "noise unknown: one repetition"
    if after["max"] < before["min"]:
        return change, "faster, beyond the spread"
    if after["min"] > before["max"]:
        return change, "slower, beyond the spread"
    return change, "within the spread"


def baseline_lines(before, after):
    """before, after: benchmarks by name. A table of the changes of CPU time, and what is in one of the two alone."""
    rows = []
    for name, entry in after.items():
        if name not in before:
            continue
        old = before[name]
        change, words = verdict(old["cpu"], entry["cpu"])
        rows.append([name, seconds_text(old["cpu"]), seconds_text(entry["cpu"]), f"{change:+.1f} %", words])
    lines = table(["CPU time: median (min to max)", "before", "now", "change", "verdict"], rows)
    for words, names in (("Only now", after.keys() - before.keys()), ("Only before", before.keys() - after.keys())):
        if names:
            lines += ["", f"{words}: {', '.join(sorted(names))}."]
    return lines
