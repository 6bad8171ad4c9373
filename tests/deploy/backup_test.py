"""The commands of docs/backup.md: what they copy is enough to go on, also where one half is older than the other."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "integration"))
import harness
from harness import DONE, INTEGRITY, PERMISSION, wait_until

PAGE = os.path.join(TOP, "docs", "backup.md")


def commands(heading):
    """The commands below a heading of the page."""
    with open(PAGE, encoding="utf-8") as file:
        section = file.read().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"(?:^    .*\n)+", section, re.MULTILINE)
    return re.sub(r"(?m)^    ", "", found[0])


class BackupTest(harness.GroupFaultsTest):
    def shell(self, heading, cluster, backup):
        answer = subprocess.run(["sh", "-eu", "-c", commands(heading)], capture_output=True, text=True, timeout=harness.LIMIT_S,
                                env=dict(os.environ, STATE=cluster.state, RUNS=cluster.runs, BACKUP=backup))
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)
        return answer.stdout

    def kill(self, cluster):
        """All but the reward server, which keeps nothing."""
        for process in [cluster.coordinator, *cluster.members, *cluster.actors]:
            process.kill()

    def start_again(self, cluster):
        cluster.coordinator = cluster.start_coordinator()
        cluster.members = [cluster.start_rank(f"rank-again-{i}") for i in range(cluster.ranks)]
        cluster.actors = [cluster.start_actor(f"actor-again-{i}") for i in range(cluster.ranks)]

    def test_everything_is_lost_and_comes_back_from_the_copy(self):
        cluster = self.start_cluster(ranks=1)
        watch, folder = self.submit_and_freeze(cluster)
        cluster.coordinator.terminate()  # as the page says: the job's checkpoint first
        self.assertEqual(cluster.coordinator.wait(), DONE, cluster.coordinator.said())
        backup = self.path("backup")
        self.shell("Copy", cluster, backup)
        self.kill(cluster)
        shutil.rmtree(cluster.state)
        shutil.rmtree(cluster.runs)
        self.shell("Restore", cluster, backup)
        kept = harness.checkpoints(folder)
        self.start_again(cluster)
        self.assertIn(kept[-1], harness.checkpoints(folder))
        self.check_ends_well(watch, folder)
        job = cluster.job()
        self.assertEqual((job["state"], job["run_folder"]), ("succeeded", folder))
        self.assertTrue(os.path.isfile(os.path.join(cluster.state, "audit.jsonl")))

    def test_a_store_older_than_the_run_folders_goes_on_from_their_checkpoints(self):
        cluster = self.start_cluster(ranks=1)
        watch, folder = self.submit_and_freeze(cluster)
        cluster.coordinator.kill()  # as a snapshot of its volume has it: without a farewell
        backup = self.path("backup")
        self.shell("Copy", cluster, backup)
        old = harness.checkpoints(folder)[-1]
        cluster.coordinator = cluster.start_coordinator()
        self.thaw(cluster)
        wait_until(lambda: harness.checkpoints(folder)[-1] > old, "a checkpoint after the copy", alive=[watch])
        for actor in cluster.actors:
            actor.pause()
        self.assertFalse(os.path.exists(os.path.join(folder, "results.json")), "the job was too fast to be disturbed")
        new = harness.checkpoints(folder)[-1]
        self.kill(cluster)
        shutil.rmtree(cluster.state)
        shutil.copytree(os.path.join(backup, "state"), cluster.state)
        self.start_again(cluster)
        self.check_ends_well(watch, folder)  # policy versions rise, though the store has given less of them out
        resumed = re.search(r"resumed from the checkpoint of step (\d+)", cluster.members[0].said())
        self.assertGreaterEqual(f"step-{int(resumed[1]):08d}", new)

    def test_a_job_that_ended_after_the_copy_of_the_store_ends_again(self):
        cluster = self.start_cluster(ranks=1)
        watch, folder = self.submit_and_freeze(cluster)
        cluster.coordinator.kill()
        backup = self.path("backup")
        self.shell("Copy", cluster, backup)
        cluster.coordinator = cluster.start_coordinator()
        self.thaw(cluster)
        self.check_ends_well(watch, folder)
        before = harness.read_json(folder, "results.json")["numbers"]
        self.kill(cluster)
        shutil.rmtree(cluster.state)
        shutil.copytree(os.path.join(backup, "state"), cluster.state)
        self.start_again(cluster)
        job = cluster.wait_for_state("succeeded", alive=cluster.members)
        self.assertEqual(job["run_folder"], folder)
        after = harness.read_json(folder, "results.json")["numbers"]
        self.assertEqual((after["ledger"], after["final"]), (before["ledger"], before["final"]))

    def test_a_copy_that_is_not_whole_is_refused(self):
        cluster = harness.Cluster(self, self.path("nowhere"), ranks=1)
        coordinator = cluster.start_coordinator()
        coordinator.terminate()
        self.assertEqual(coordinator.wait(), DONE, coordinator.said())
        backup = self.path("backup")
        os.makedirs(cluster.runs, exist_ok=True)
        self.shell("Copy", cluster, backup)
        store = os.path.join(backup, "state", "jobs.db")
        with open(store, "r+b") as file:
            file.truncate(os.path.getsize(store) // 2)
        with self.assertRaisesRegex(AssertionError, "jobs.db: FAILED"):
            self.shell("Restore", cluster, backup)
        # Who copies it all the same is told by the coordinator.
        shutil.rmtree(cluster.state)
        shutil.copytree(os.path.join(backup, "state"), cluster.state)
        again = self.call("again", "sluice-learner", "coordinator", "--address", cluster.address, "--runs", cluster.runs,
                          "--state", cluster.state)
        self.assertEqual(again.code(), INTEGRITY, again.said())

    def test_a_store_of_a_newer_release_is_refused_and_left_as_it_is(self):
        cluster = harness.Cluster(self, self.path("nowhere"), ranks=1)
        coordinator = cluster.start_coordinator()
        coordinator.terminate()
        self.assertEqual(coordinator.wait(), DONE, coordinator.said())
        store = os.path.join(cluster.state, "jobs.db")
        with contextlib.closing(sqlite3.connect(store)) as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            database.execute(f"PRAGMA user_version={version + 1}")
        with contextlib.closing(sqlite3.connect(store)) as database:
            before = list(database.iterdump())
        again = self.call("again", "sluice-learner", "coordinator", "--address", cluster.address, "--runs", cluster.runs,
                          "--state", cluster.state)
        self.assertEqual(again.code(), PERMISSION, again.said())
        self.assertIn(f"has format {version + 1}, this version reads formats up to {version}", again.said())
        with contextlib.closing(sqlite3.connect(store)) as database:
            self.assertEqual(list(database.iterdump()), before)
        # The page of upgrades says which format this release writes.
        with open(os.path.join(TOP, "docs", "upgrade.md"), encoding="utf-8") as file:
            self.assertIn(f"| job store | {version} |", file.read())


if __name__ == "__main__":
    harness.main()
