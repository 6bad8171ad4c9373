"""The power is cut: what was not synced is gone. A job goes on from any such moment to the same bytes, from the checkpoint that
it last spoke of or a later one, and a submission that was answered is there.

The disk is recorded: after each fsync of a process its file's or folder's state is kept as what a power cut spares. From that,
two disks are made for a moment: one where nothing unsynced survived, names included, and one where all names did and
unsynced contents are empty, as a file system does that writes names first.
"""

import os
import re
import shutil
import socket
import subprocess
import threading

from experiment import HERE, harness, main, need_program


class Disk:
    """What a power cut would leave of a folder, at every fsync of the processes that were started with `environment`."""

    def __init__(self, x, folder, library, now=lambda: None):
        os.makedirs(folder)
        self.folder = folder
        self.points = []      # (contents by inode, names by inode of a folder, tree, now())
        self._contents, self._names = {}, {os.stat(folder).st_ino: {}}
        self._now = now
        path = f"{folder}.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self.environment = {"LD_PRELOAD": library, "SYNC_RECORDER": path}
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._listener.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                path = b""
                while piece := connection.recv(4096):
                    path += piece
                if os.fsdecode(path).startswith(self.folder):
                    self._synced(os.fsdecode(path))
                connection.sendall(b".")

    def _synced(self, path):
        try:
            inode = os.stat(path).st_ino
            if os.path.isdir(path):
                self._names[inode] = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(path)}
            else:
                with open(path, "rb") as file:
                    self._contents[inode] = file.read()
        except FileNotFoundError:
            return  # renamed by another thread meanwhile
        tree = {os.path.relpath(os.path.join(at, name), self.folder): os.stat(os.path.join(at, name)).st_ino
                for at, _, names in os.walk(self.folder) for name in names}
        self.points.append((dict(self._contents), dict(self._names), tree, self._now()))

    def after_power_cut(self, point, folder, names_first):
        """Makes `folder` what is left at a point."""
        contents, names, tree, _ = point
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        if names_first:
            for path, inode in tree.items():
                os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
                write(os.path.join(folder, path), contents.get(inode, b""))
            return
        self._rebuild(folder, os.stat(self.folder).st_ino, contents, names)

    def _rebuild(self, folder, inode, contents, names):
        for name, (child, is_folder) in names.get(inode, {}).items():
            path = os.path.join(folder, name)
            if is_folder:
                os.makedirs(path)
                self._rebuild(path, child, contents, names)
            else:
                write(path, contents.get(child, b""))


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def recorder_library(x):
    path = x.path("sync_recorder.so")
    subprocess.run([need_program("cc", "gcc"), "-shared", "-fPIC", "-O1", "-o", path, os.path.join(HERE, "sync_recorder.c"),
                    "-ldl"], check=True)
    return path


def parameters(folder):
    return harness.sha256(os.path.join(folder, "export", "final", "model.safetensors"))


def checkpoints_survive(x, library):
    spec = {"name": "sft", "kind": "sft", "seed": 5, "data": x.data, "model": harness.model_spec(),
            "sft": {"passes": 3, "targets_per_step": 100, "validation": {"every": 0, "beams": 10}},
            "checkpoint": {"every": 2, "keep": 2}}
    log = []

    def spoken_of():
        if not log:
            return 0
        return max((int(step) for step in re.findall(r"checkpoint of step (\d+)", log[0].said())), default=0)
    disk = Disk(x, x.path("run"), library, spoken_of)
    job = x.run_under("recorded", disk.environment, "sluice-learner", "run", x.spec("sft", spec), "--run-folder", disk.folder)
    log.append(job)
    x.assertEqual(job.wait(), harness.DONE, job.said())
    disk.close()
    want = parameters(disk.folder)
    points = disk.points
    x.assertGreater(len(points), 20)
    tries = [(point, names_first) for point in points for names_first in (False, True)]
    behind = 0
    for point, names_first in tries if x.thorough else x.random.sample(tries, 10):
        folder = x.path("after")
        disk.after_power_cut(point, folder, names_first)
        what = f"after sync {points.index(point)} of {len(points)}, {'names first' if names_first else 'nothing unsynced'}"
        with x.recovery():
            again, _ = x.start_job(spec, name="sft", folder=folder)
            x.assertEqual(again.wait(), harness.DONE, f"{what}: {again.said()}")
        x.processes.remove(again)
        x.assertEqual(parameters(folder), want, what)
        resumed = re.search(r"resumed from the checkpoint of step (\d+)", again.said())
        behind = max(behind, point[3] - (int(resumed.group(1)) if resumed else 0))
        x.assertGreaterEqual(int(resumed.group(1)) if resumed else 0, point[3], f"{what}: {again.said()}")
    x.note(f"{len(points)} syncs of a job, the power cut after {x.pick(10, len(tries))} of them")


def submissions_survive(x, library):
    disk = Disk(x, x.path("state"), library)
    cluster = harness.Cluster(x, x.data, ranks=1)
    os.environ.update(disk.environment)
    try:
        coordinator = cluster.start_coordinator()
    finally:
        for name in disk.environment:
            del os.environ[name]
    answered = []  # (points by then, id)
    for number in range(x.pick(3, 20)):
        submitted = cluster.ctl("submit", x.spec(f"job-{number}", dict(x.rl(), name=f"job-{number}")))
        x.assertEqual(submitted.wait(), harness.DONE, submitted.said())
        answered.append((len(disk.points), re.search(rf"^job-{number}-\w+$", submitted.said(), re.M).group(0)))
    coordinator.kill()
    disk.close()
    x.assertGreaterEqual(len(disk.points), len(answered))
    for count, (points, _) in enumerate(answered, 1):
        for names_first in (False, True):
            cluster.state = x.path("state-after")
            disk.after_power_cut(disk.points[points - 1], cluster.state, names_first)
            coordinator = cluster.start_coordinator()
            there = {job["job_id"] for job in cluster.json("list")["jobs"]}
            x.assertLessEqual({job for _, job in answered[:count]}, there)
            coordinator.kill()
    x.note(f"{len(answered)} answered submissions, {len(disk.points)} syncs of the job store")


def run(x):
    library = recorder_library(x)
    checkpoints_survive(x, library)
    submissions_survive(x, library)


if __name__ == "__main__":
    main(__file__, run)
