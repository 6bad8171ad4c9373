"""A checkpoint is damaged: every file of it, a bit, its end, all of it. The damage is found and named, the checkpoint before
is used instead, and a job never starts from nothing without saying so.
"""

import os
import shutil

from experiment import harness, main
from harness import DONE, INTEGRITY

PIECE = 4096


def spec_of(x):
    return {"name": "sft", "kind": "sft", "seed": 5, "data": x.data, "model": harness.model_spec(),
            "sft": {"passes": 3, "targets_per_step": 100, "validation": {"every": 0, "beams": 10}},
            "checkpoint": {"every": 4, "keep": 10}}


def flipped(x, offset):
    def damage(path):
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1 << x.random.randrange(8)]))
    return damage


def cut(length):
    return lambda path: os.truncate(path, length)


def longer(path):
    with open(path, "ab") as file:
        file.write(b"\0")


def damages(x, path):
    """{name: what to do to the file}."""
    size = os.path.getsize(path)
    offsets = range(0, size, PIECE) if x.thorough else [x.random.randrange(size)]
    found = {f"bit {offset}": flipped(x, min(offset + x.random.randrange(PIECE), size - 1) if x.thorough else offset)
             for offset in offsets}
    for length in x.pick([x.random.randrange(size)], sorted({0, size - 1, *range(PIECE, size, PIECE)})):
        found[f"cut at {length}"] = cut(length)
    found["gone"] = os.remove
    if x.thorough:
        found["longer"] = longer
    return found


def resume(x, run, change, name):
    """(process, run folder) of a job that resumes a copy of a run after change(checkpoints folder)."""
    folder = x.path("copy")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder)
    change(os.path.join(folder, "checkpoints"))
    process, _ = x.start_job(spec_of(x), name=name, folder=folder)
    process.wait()
    return process


def run(x):
    _, whole = x.run_job(spec_of(x), name="whole")
    names = harness.checkpoints(whole)
    newest, previous = names[-1], names[-2]
    inside = os.path.join(whole, "checkpoints", newest)
    files = sorted(os.path.relpath(os.path.join(at, name), inside) for at, _, found in os.walk(inside) for name in found)
    x.assertGreaterEqual(len(files), 5)
    outcomes = {"previous": 0, "refused": 0}
    silent, refused = [], []
    for file in files:
        for name, damage in damages(x, os.path.join(inside, file)).items():
            done = resume(x, whole, lambda parent: damage(os.path.join(parent, newest, file)), "damaged")
            said, what = done.said(), f"{file}, {name}"
            x.assertIn(done.code(), (DONE, INTEGRITY, harness.PERMISSION), f"{what}: {said}")
            x.assertNotIn(f"resumed from the checkpoint of step {int(newest[5:])}", said, f"{what} was not noticed")
            if done.code() == DONE:
                outcomes["previous"] += 1
                x.assertIn(f"resumed from the checkpoint of step {int(previous[5:])}", said, what)
                if newest not in said.split("resumed from")[0]:
                    silent.append(what)
            else:
                outcomes["refused"] += 1
                refused.append(what)
                x.assertIn(os.path.basename(file), said, what)
    x.note(f"{len(files)} files, {sum(outcomes.values())} damages: {outcomes['previous']} went on from the checkpoint before, "
           f"{outcomes['refused']} were refused by name")

    def no_manifest(parent):
        for name in names:
            os.remove(os.path.join(parent, name, "manifest.json"))
    lost = resume(x, whole, no_manifest, "no-manifest")

    x.assertEqual(refused, [], "refused instead of going on from the checkpoint before")
    x.assertEqual(silent, [], "the checkpoint before was used without a word about the damaged one")
    x.assertEqual(lost.code(), INTEGRITY, f"all manifests are gone: {lost.said()}")
    x.assertIn("manifest.json", lost.said())


if __name__ == "__main__":
    main(__file__, run)
