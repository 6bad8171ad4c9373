"""The data set changes between two runs of one job: a byte of one event, the order, more or fewer events, all under the same
name. The job refuses to resume and shows what differs; with the old data set it goes on to the same bytes.
"""

import os
import shutil

from experiment import harness, main
from harness import DONE, INTEGRITY, PERMISSION


def spec_of(data):
    return {"name": "sft", "kind": "sft", "seed": 5, "data": data, "model": harness.model_spec(),
            "sft": {"passes": 3, "targets_per_step": 100, "validation": {"every": 0, "beams": 10}},
            "checkpoint": {"every": 4, "keep": 10}}


def changes(draw, lines):
    """{what: the lines of the events file afterwards}; the first line is its header."""
    header, rows = lines[0], lines[1:]
    at = draw.randrange(len(rows))
    user, item, time = rows[at].split(",")
    other = f"{user},i{(int(item[1:]) + 1) % harness.ITEMS},{time}"
    reordered = rows[:]
    draw.shuffle(reordered)
    return {"one event": [header, *rows[:at], other, *rows[at + 1:]],
            "another order of lines": [header, *reordered],
            "longer": [header, *rows, *(f"new,i{i},{10**6 + i}" for i in range(harness.EVENTS))],
            "shorter": [header, *rows[:-harness.EVENTS]]}


def prepare(x, lines, name):
    shutil.rmtree(x.path("data"), ignore_errors=True)
    with open(x.path("events.csv"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    spec = harness.prepare_spec(x.path("events.csv"), x.path("data"))
    spec["prepare"]["ranker"] = {"sequential": False}
    x.run_job(spec, name=f"prepare-{name}")
    return x.path("data")


def interrupt(x, whole):
    """A copy of a run as if it had been killed after its last but one checkpoint."""
    folder = x.path("interrupted")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    shutil.rmtree(os.path.join(folder, "checkpoints", harness.checkpoints(folder)[-1]))
    shutil.rmtree(os.path.join(folder, "export"))
    os.remove(os.path.join(folder, "results.json"))
    return folder


def run(x):
    with open(harness.write_events(x.path("events.csv")), encoding="utf-8") as file:
        lines = file.read().splitlines()
    data = prepare(x, lines, "first")
    _, whole = x.run_job(spec_of(data), name="whole")
    want = harness.sha256(os.path.join(whole, "export", "final", "model.safetensors"))
    same = []
    for number, (what, changed) in enumerate(changes(x.random, lines).items()):
        prepare(x, changed, f"changed-{number}")
        folder = interrupt(x, whole)
        process, _ = x.start_job(spec_of(data), name="sft", folder=folder)
        if process.wait() == DONE and what == "another order of lines":
            same.append(what)  # events are ordered by their times: it is the same data set
            continue
        x.assertEqual(process.code(), PERMISSION, f"{what}: {process.said()}")
        x.assertRegex(process.said(), r"the data set changed since the checkpoint: digest \w+ then, \w+ now", what)
        x.assertFalse(os.path.exists(os.path.join(folder, "results.json")))
    # Without preparing it anew: a byte of a file.
    prepare(x, lines, "again")
    name = x.random.choice(sorted(n for n in os.listdir(data) if n.endswith(".npy")))
    path = os.path.join(data, name)
    with open(path, "r+b") as file:
        whole_file = file.read()
        file.seek(x.random.randrange(128, len(whole_file)))
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    process, _ = x.start_job(spec_of(data), name="sft", folder=interrupt(x, whole))
    x.assertEqual(process.wait(), INTEGRITY, process.said())
    x.assertIn(name, process.said())
    with open(path, "wb") as file:
        file.write(whole_file)
    folder = interrupt(x, whole)
    with x.recovery():
        resumed, _ = x.run_job(spec_of(data), name="sft", folder=folder)
    x.assertIn("resumed from the checkpoint of step", resumed.said())
    x.assertEqual(harness.sha256(os.path.join(folder, "export", "final", "model.safetensors")), want)
    if same:
        x.note("another order of lines is the same data set")


if __name__ == "__main__":
    main(__file__, run)
