"""Files that earlier releases wrote, and this one's: what the programs of today make of them.

releases/VERSION.tar.gz holds a small installation as release VERSION left it: a data set, a job store, the run folders of an rl job that is
paused in the middle, with its record, and of an evaluation. Each is opened, and the rl job goes on to its end. An archive stays as
it is. SLUICE_WRITE_RELEASE=1 writes that of this release, once, before it goes out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import sys
import tarfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "integration"))
import harness  # noqa: E402
from harness import DONE, PERMISSION  # noqa: E402

RELEASES = os.path.join(TOP, "tests", "deploy", "releases")
HOME = "/srv/sluice"  # where a job store in an archive has its run folders, as in the images
MAX_BYTES = 200 << 10  # of one archive, in the repository for good
STEPS, GROUPS = 40, 16
HELD = ("data", "state", "runs", "expected.json")


def version():
    with open(os.path.join(TOP, "CMakeLists.txt"), encoding="utf-8") as file:
        return re.search(r"project\(sluice VERSION (\S+)", file.read())[1]


def archives():
    return sorted(os.path.join(RELEASES, name) for name in os.listdir(RELEASES) if name.endswith(".tar.gz"))


def move_runs(store, old, new):
    """A job store holds its run folders by their whole path; unpacked elsewhere, they are there."""
    with contextlib.closing(sqlite3.connect(store)) as database, database:
        tables = [name for name, in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, column, *_ in database.execute(f"PRAGMA table_info({table})").fetchall():
                database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE typeof({column}) = 'text' "
                                 f"AND instr({column}, ?)", (old, new, old))


class ReleasesTest(harness.SluiceTest):
    def setUp(self):
        # Specs in the archives name data by a relative path.
        home = os.getcwd()
        os.chdir(self.folder)
        self.addCleanup(os.chdir, home)

    def cluster(self):
        cluster = harness.Cluster(self, "data", ranks=1)
        cluster.runs, cluster.state = "runs", "state"
        return cluster

    def unpack(self, archive):
        with tarfile.open(archive) as file:
            file.extractall(self.folder)  # of this repository
        move_runs("state/jobs.db", HOME, self.folder)
        return harness.read_json("expected.json")

    def test_this_release_has_an_archive_and_each_is_small(self):
        if os.environ.get("SLUICE_WRITE_RELEASE") == "1":
            self.write(os.path.join(RELEASES, f"{version()}.tar.gz"))
        self.assertIn(f"{version()}.tar.gz", [os.path.basename(path) for path in archives()],
                      "SLUICE_WRITE_RELEASE=1 python3 tests/deploy/releases_test.py writes it")
        for path in archives():
            self.assertLess(os.path.getsize(path), MAX_BYTES, path)

    def write(self, archive):
        self.assertFalse(os.path.exists(archive), f"{archive} is there, and stays as it is")
        harness.write_events("events.csv")
        spec = harness.prepare_spec("events.csv", "data")
        spec["prepare"]["ranker"] = {"sequential": False}
        self.run_job(spec)
        cluster = self.cluster().start_all()
        rl = harness.rl_spec("data", steps=STEPS, record=True, staleness=0)
        rl["model"] = {"hidden_size": 8, "layers": 1, "heads": 1, "kv_heads": 1}
        rl["checkpoint"]["keep"] = 1
        watch = cluster.submit(rl)
        folder = cluster.run_folder(alive=[watch])
        harness.wait_until(lambda: harness.checkpoints(folder), "a checkpoint", alive=[watch])
        job = cluster.job()["job_id"]
        self.assertEqual(cluster.ctl("pause", job).wait(), DONE)
        paused = cluster.wait_for_state("paused")
        evaluate = cluster.submit({"name": "evaluate", "kind": "evaluate", "data": "data", "model": {"path": os.path.join(folder, "export", "best")},
                                   "evaluate": {"beams": 10, "unconstrained_beams": 2}})
        self.assertEqual(evaluate.wait(), DONE, evaluate.said())
        jobs = {entry["job_id"]: entry["state"] for entry in cluster.json("list")["jobs"]}
        step = int(paused["last_checkpoint"].rpartition("-")[2])
        for process in self.processes:
            if not process.ended():
                process.terminate()
                process.wait()
        move_runs("state/jobs.db", self.folder, HOME)
        for name in os.listdir("runs"):
            for part in ("tensorboard", "report.html"):  # nothing of Sluice reads them
                path = os.path.join("runs", name, part)
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path) if os.path.exists(path) else None
        with open("expected.json", "w", encoding="utf-8") as file:
            json.dump({"release": version(), "jobs": jobs, "paused": job, "step": step, "steps": STEPS}, file)

        def plain(entry):
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            return entry
        os.makedirs(RELEASES, exist_ok=True)
        with tarfile.open(archive, "w:gz", compresslevel=9) as file:
            for name in HELD:
                file.add(name, filter=plain)

    def test_each_release_left_what_this_one_goes_on_from(self):
        self.assertTrue(archives())
        for archive in archives():
            with self.subTest(os.path.basename(archive)):
                self.go_on(self.unpack(archive))
                for name in HELD:
                    shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)

    def go_on(self, expected):
        folders = {job: os.path.join("runs", job) for job in expected["jobs"]}
        paused = folders[expected["paused"]]
        evaluated = next(folder for job, folder in folders.items() if os.path.exists(os.path.join(folder, "outcomes.csv")))
        checkpoint = os.path.join(paused, "checkpoints", f"step-{expected['step']:08d}")
        for words in (("inspect", "dataset", "data"), ("inspect", "checkpoint", checkpoint), ("replay", paused, "--tau", ".2,.5"),
                      ("inspect", "model", os.path.join(paused, "export", "best"))):
            self.ask(*words)
        self.check_call("compare", "sluice-learner", "compare", f"a={evaluated}", f"b={evaluated}")

        cluster = self.cluster()
        cluster.start_coordinator()
        self.assertEqual({job["job_id"]: job["state"] for job in cluster.json("list")["jobs"]}, expected["jobs"])
        self.assertEqual(cluster.json("describe", expected["paused"])["last_checkpoint"],
                         os.path.join(self.folder, checkpoint))
        cluster.start_reward()
        cluster.start_rank()
        cluster.start_actor()
        self.assertEqual(cluster.ctl("resume", expected["paused"]).wait(), DONE)
        wait = cluster.ctl("wait", expected["paused"])
        self.assertEqual(wait.wait(), DONE, wait.said())
        said = cluster.ctl("logs", expected["paused"])
        self.assertEqual(said.wait(), DONE)
        self.assertIn(f"resumed from the checkpoint of step {expected['step']}", said.said())
        self.check_rl_results(paused, expected["steps"], GROUPS)
        for process in self.processes:
            process.kill()

    def test_a_checkpoint_of_another_format_is_refused_and_named(self):
        """What a change of the format without a reader of the old one would look like."""
        expected = self.unpack(archives()[-1])
        folder = os.path.join("runs", expected["paused"])
        spec = os.path.join(folder, "spec.yaml")
        manifest = os.path.join(folder, "checkpoints", harness.checkpoints(folder)[-1], "manifest.json")
        document = harness.read_json(manifest)
        document["format"] -= 1
        harness.replace_file(manifest, json.dumps(document) + "\n")
        refused = self.call("run", "sluice-learner", "run", spec, "--run-folder", folder, "--address", "127.0.0.1:0")
        self.assertEqual(refused.code(), PERMISSION, refused.said())
        self.assertIn("has format 0, this version reads 1", refused.said())


if __name__ == "__main__":
    harness.main()
