"""Every key of the job spec with a slip of the finger. Each is refused with the place, the key as written and the one that
was meant; none is passed over in silence.
"""

import re

from experiment import harness, main

SHOWN = 5


def keys(x):
    """Dotted keys of the spec, as the program explains them."""
    text = x.ask("config", "explain", "--markdown")
    return [found for found in re.findall(r"^\| `([\w.]+)` \|", text, re.M)]


def slip(draw, name):
    """The name with a letter lost, doubled or changed with its neighbour."""
    at = draw.randrange(len(name))
    ways = [name[:at] + name[at + 1:], name[:at] + name[at] + name[at:]]
    if at + 1 < len(name):
        ways.append(name[:at] + name[at + 1] + name[at] + name[at + 2:])
    return draw.choice([way for way in ways if way and way != name] or [name + "x"])


def text_of(dotted):
    """YAML of a spec with one more key."""
    lines, indent = [], ""
    parts = dotted.split(".")
    for part in parts[:-1]:
        lines.append(f"{indent}{part}:")
        indent += "  "
    return "\n".join([*lines, f"{indent}{parts[-1]}: 1"]) + "\n"


def run(x):
    every = keys(x)
    x.assertGreater(len(every), 100)
    taken = set(every) | {key.rsplit(".", i)[0] for key in every for i in (1, 2, 3) if key.count(".") >= i}
    silent, placeless, unnamed, unhinted = [], [], [], []
    tries = 0
    for key in every if x.thorough else x.random.sample(every, 60):
        for part in range(key.count(".") + 1):
            for _ in range(x.pick(1, 5)):
                parts = key.split(".")
                parts[part] = slip(x.random, parts[part])
                wrong = ".".join(parts)
                if ".".join(parts[:part + 1]) in taken:
                    continue  # another key
                tries += 1
                with open(x.path("typo.yaml"), "w", encoding="utf-8") as file:
                    file.write(text_of(wrong))
                process = x.call("typo", "sluicectl", "validate", x.path("typo.yaml"))
                x.processes.remove(process)
                said = process.said()
                if process.code() != harness.USAGE:
                    silent.append(wrong)
                    continue
                # "one", for zone, is also a word of other sentences.
                named = [line for line in said.splitlines() if re.search(rf"\b{re.escape(parts[part])}\b", line)]
                placed = [line for line in named if re.search(r"typo\.yaml:\d+:\d+: ", line)]
                line = next(iter(placed), "")
                if not named:
                    unnamed.append(wrong)
                elif not placed:
                    placeless.append(wrong)
                elif not re.search(rf"did you mean [^?]*\b{key.split('.')[part]}\b", line):
                    unhinted.append(f"{wrong} ({line.split(': ', 1)[1]})")
    for what, found in (("passed over in silence", silent), ("refused without a place", placeless),
                        ("refused without its name", unnamed)):
        x.assertEqual(found[:SHOWN], [], f"{len(found)} of {tries} slips were {what}")
    x.note(f"{tries} slips refused with place and name, {tries - len(unhinted)} with the key that was meant")
    x.assertLess(len(unhinted), tries * 0.1, f"too few hints, e.g. {unhinted[:SHOWN]}")


if __name__ == "__main__":
    main(__file__, run)
