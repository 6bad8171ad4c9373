"""The disk is full at some byte of a checkpoint or of what goes before it. The job ends with 14, the last checkpoint is
whole, and with room again the same command goes on from it to the same parameters.

The byte is swept twice: as a limit on the size of a file (RLIMIT_FSIZE), and, with root, as the size of a file system.
"""

import ctypes
import os
import shutil
import subprocess

from experiment import harness, main
from harness import NO_SPACE

CLONE_NEWNS = 0x20000


def spec_of(x):
    return {"name": "sft", "kind": "sft", "seed": 5, "data": x.data, "model": harness.model_spec(),
            "sft": {"passes": 4, "targets_per_step": 100, "validation": {"every": 0, "beams": 10}},
            "checkpoint": {"every": 4, "keep": 10}}


def parameters(folder):
    return harness.sha256(os.path.join(folder, "export", "final", "model.safetensors"))


def tree(folder):
    """{path: digest} of what lies under a folder."""
    return {os.path.relpath(os.path.join(at, name), folder): harness.sha256(os.path.join(at, name))
            for at, _, names in os.walk(folder) for name in names}


def bytes_under(folder):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)


def half_done(x, whole):
    """A copy of a run as it was when it wrote its last checkpoint."""
    folder = x.path("half")
    shutil.copytree(whole, folder)
    newest = harness.checkpoints(folder)[-1]
    shutil.rmtree(os.path.join(folder, "checkpoints", newest))
    shutil.rmtree(os.path.join(folder, "export"))
    for name in ("results.json", "report.html"):
        os.remove(os.path.join(folder, name))
    return folder


def check_full(x, process, folder, before, what):
    x.assertEqual(process.wait(), NO_SPACE, f"{what}: {process.said()}")
    x.assertNotIn("terminate called", process.said())
    after = tree(os.path.join(folder, "checkpoints"))
    x.assertEqual({path: after.get(path) for path in before}, before, f"{what}: a checkpoint changed")
    x.assertEqual([path for path in after if ".tmp" in path], [], f"{what}: something half-written was left")


def with_limit(x, half, want, limit):
    folder = x.path(f"limit-{limit}")
    shutil.copytree(half, folder)
    before = tree(os.path.join(folder, "checkpoints"))
    full, _ = x.start_job(spec_of(x), name="full", folder=folder, max_file_bytes=limit)
    check_full(x, full, folder, before, f"files of at most {limit} bytes")
    with x.recovery():
        resumed, _ = x.run_job(spec_of(x), name="resumed", folder=folder)
    x.assertIn("resumed from the checkpoint of step", resumed.said())
    x.assertEqual(parameters(folder), want)
    shutil.rmtree(folder)


def with_room(x, half, want, room):
    """A file system with so many bytes left."""
    mount = x.path("small")
    os.makedirs(mount, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={bytes_under(half) + (8 << 20)}", "none", mount], check=True)
    try:
        folder = os.path.join(mount, "run")
        shutil.copytree(half, folder)
        before = tree(os.path.join(folder, "checkpoints"))
        state = os.statvfs(mount)
        filler = os.path.join(mount, "filler")
        with open(filler, "wb") as file:
            file.write(b"\0" * (state.f_bavail * state.f_frsize - room))
        full, _ = x.start_job(spec_of(x), name="full", folder=folder)
        check_full(x, full, folder, before, f"{room} bytes of room")
        os.remove(filler)
        with x.recovery():
            x.run_job(spec_of(x), name="resumed", folder=folder)
        x.assertEqual(parameters(folder), want)
    finally:
        subprocess.run(["umount", mount], check=True)


def run(x):
    _, whole = x.run_job(spec_of(x), name="whole")
    want = parameters(whole)
    half = half_done(x, whole)
    largest = max(os.path.getsize(os.path.join(at, name))
                  for at, _, names in os.walk(os.path.join(whole, "checkpoints")) for name in names)
    checkpoint = bytes_under(os.path.join(whole, "checkpoints", harness.checkpoints(whole)[-1]))
    limits = sorted(x.random.randrange(1, largest) for _ in range(x.pick(4, 150)))
    for limit in limits:
        with_limit(x, half, want, limit)
    x.note(f"{len(limits)} limits of a file's size up to {largest} bytes")
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
        x.note("no file system was made full: that needs root")
        return
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    rooms = sorted(x.random.randrange(0, checkpoint) // 4096 * 4096 for _ in range(x.pick(3, 150)))
    for room in rooms:
        with_room(x, half, want, room)
    x.note(f"{len(rooms)} file systems with up to {checkpoint} bytes left")


if __name__ == "__main__":
    main(__file__, run)
