"""kill -9 of ranks and actors while a group trains: nothing that anybody has to mend."""

import harness


class RankFaultsTest(harness.GroupFaultsTest):
    def replace_killed_rank(self, victim, **changes):
        """Returns (cluster, run folder)."""
        cluster = self.start_cluster()
        watch, folder = self.submit_and_freeze(cluster, **changes)
        rank_of = {member["address"]: member["rank"] for member in cluster.job()["members"]}
        dying = next(m for m in cluster.members if rank_of[m.address] == victim)
        dying.kill()
        self.thaw(cluster)
        cluster.coordinator.wait_for("group lost")
        self.assertFalse(watch.ended())
        cluster.start_rank("replacement")
        self.check_ends_well(watch, folder)
        job = cluster.job()
        self.assertEqual((job["state"], job["step"]), ("succeeded", self.STEPS))
        self.assertGreaterEqual(job["epoch"], 2)
        self.assertIn("group was lost", watch.said())
        return cluster, folder

    def test_the_first_rank_is_killed_and_replaced_and_the_job_goes_on_from_its_checkpoint(self):
        self.replace_killed_rank(0)

    def test_a_synchronous_job_that_lost_a_rank_ends_with_the_very_same_parameters_as_one_that_did_not(self):
        cluster, disturbed = self.replace_killed_rank(1, staleness=0)
        before = {job["job_id"] for job in cluster.json("list")["jobs"]}
        watch = cluster.submit(self.spec_of(cluster, staleness=0))
        self.assertEqual(watch.wait(), harness.DONE, watch.said())
        new = [job["job_id"] for job in cluster.json("list")["jobs"] if job["job_id"] not in before]
        undisturbed = cluster.json("describe", new[0])["run_folder"]
        self.check_rl_results(undisturbed, self.STEPS, 16)
        newest = harness.checkpoints(disturbed)[-1]
        for file in ("export/final/model.safetensors", f"checkpoints/{newest}/optimizer.safetensors", "ledger.csv"):
            self.assertEqual(*(harness.sha256(f"{folder}/{file}") for folder in (disturbed, undisturbed)), file)

    def test_a_rank_asked_to_leave_saves_a_checkpoint_and_its_successor_goes_on_from_there(self):
        cluster = self.start_cluster()
        watch, folder = self.submit_and_freeze(cluster)
        leaving = cluster.members[1]
        leaving.terminate()
        self.assertEqual(leaving.wait(), harness.DONE, leaving.said())
        step = harness.last_step(folder)
        self.assertEqual(harness.checkpoints(folder)[-1], f"step-{step:08d}")
        self.thaw(cluster)
        successor = cluster.start_rank("successor")
        self.check_ends_well(watch, folder)
        self.assertIn(f"resumed from the checkpoint of step {step}", cluster.members[0].said() + successor.said())
        self.assertEqual(cluster.job()["epoch"], 2)  # the job was given back, not lost with its group
        self.assertNotIn("group was lost", watch.said())

    def test_a_standby_rank_takes_the_place_of_a_killed_one_at_once(self):
        cluster = self.start_cluster()
        standby = cluster.start_rank("standby")
        watch, folder = self.submit_and_freeze(cluster)
        cluster.members[1].kill()
        self.thaw(cluster)
        self.check_ends_well(watch, folder)
        self.assertRegex(standby.said(), r"job assigned .*epoch=[2-9]")

    def test_actors_change_ranks_when_one_rank_has_lost_its_own(self):
        cluster = self.start_cluster()
        watch, folder = self.submit_and_freeze(cluster)
        cluster.actors.pop().kill()
        self.thaw(cluster)  # one actor for two ranks, each of which waits for it in turn
        self.check_ends_well(watch, folder)
        self.assertIn("an actor is to change its rank", cluster.coordinator.said())


if __name__ == "__main__":
    harness.main()
