"""The coordinator dies, drains, or is told to cancel, while a group trains."""

import os
import time

import harness
from harness import CANCELLED, DONE, last_step, wait_until

SLOW_S = 0.5  # longer than a machine takes that has nothing else to do


class CoordinatorFaultsTest(harness.GroupFaultsTest):
    def test_a_killed_coordinator_comes_back_to_its_job_which_never_stopped(self):
        cluster = self.start_cluster()
        watch, folder = self.submit_and_freeze(cluster)
        before = cluster.job()
        cluster.coordinator.kill()
        self.thaw(cluster)
        cluster.coordinator = cluster.start_coordinator()
        self.check_ends_well(watch, folder)  # the client finds the new coordinator by itself
        after = cluster.job()
        self.assertEqual((after["job_id"], after["state"], after["submitted"]),
                         (before["job_id"], "succeeded", before["submitted"]))
        # The same group: a coordinator's death is no reason for a new epoch.
        self.assertEqual(after["epoch"], before["epoch"])
        for rank in cluster.members:
            self.assertEqual(rank.said().count("job assigned"), 1)

    def test_a_drained_coordinator_leaves_a_job_that_the_next_one_takes_up(self):
        cluster = self.start_cluster()
        watch, folder = self.submit_and_freeze(cluster)
        cluster.coordinator.terminate()
        self.assertEqual(cluster.coordinator.wait(), DONE, cluster.coordinator.said())
        step = last_step(folder)
        self.assertEqual(harness.checkpoints(folder)[-1], f"step-{step:08d}")
        self.thaw(cluster)
        cluster.coordinator = cluster.start_coordinator()
        self.check_ends_well(watch, folder)

    def test_all_of_it_killed_and_started_again_goes_on_from_the_checkpoint(self):
        cluster = self.start_cluster()
        watch, folder = self.submit_and_freeze(cluster)
        version = max(row["policy_version"] for row in harness.read_metrics(folder) if "policy_version" in row)
        for process in [cluster.coordinator, *cluster.members, *cluster.actors]:
            process.kill()
        cluster.coordinator = cluster.start_coordinator()
        for name in ("rank-c", "rank-d"):
            cluster.start_rank(name)
        for name in ("actor-c", "actor-d"):
            cluster.start_actor(name)
        _, trained = self.check_ends_well(watch, folder)
        self.assertGreater(trained[-1]["policy_version"], version)

    def test_a_coordinator_that_is_slow_to_take_a_connection_is_waited_for(self):
        cluster = harness.Cluster(self, self.path("nowhere"), ranks=1)
        coordinator = cluster.start_coordinator()
        coordinator.pause()
        listing = cluster.ctl("--timeout", harness.LIMIT_S, "list", name="list")
        until = time.monotonic() + SLOW_S
        wait_until(lambda: listing.ended() or time.monotonic() > until, "the client gives up, or waits")
        coordinator.resume()
        self.assertEqual(listing.wait(), DONE, listing.said())

    def test_a_cancelled_job_ends_with_a_checkpoint_also_while_it_waits_for_actors(self):
        cluster = self.start_cluster()
        watch, folder = self.submit_and_freeze(cluster)
        job_id = cluster.job()["job_id"]
        cancel = cluster.ctl("cancel", job_id)
        self.assertEqual(cancel.wait(), DONE, cancel.said())
        self.assertEqual(watch.wait(), CANCELLED, watch.said())
        job = cluster.job()
        self.assertEqual((job["state"], job["exit_code"]), ("cancelled", CANCELLED))
        ledger = job["ledger"]
        self.assertEqual(ledger["open"], 0, ledger)
        self.assertGreater(ledger["cancelled"], 0, ledger)
        self.assertEqual(ledger["issued"], ledger["trained"] + ledger["cancelled"], ledger)
        self.assertTrue(harness.checkpoints(folder))
        self.assertFalse(os.path.exists(os.path.join(folder, "results.json")))
        # The group is free for the next job.
        self.thaw(cluster)
        spec = dict(harness.rl_spec(cluster.data, steps=2), name="next")
        following = cluster.submit(spec)
        self.assertEqual(following.wait(), DONE, following.said())


if __name__ == "__main__":
    harness.main()
