"""kill -9 of ranks and actors while a group trains: nothing that anybody has to mend."""

import harness


class RankFaultsTest(harness.GroupFaultsTest):
    def replace_killed_rank(self, victim):
        cluster = self.start_cluster()
        watch, folder = self.submit_and_freeze(cluster)
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

    def test_the_first_rank_is_killed_and_replaced_and_the_job_goes_on_from_its_checkpoint(self):
        self.replace_killed_rank(0)

    def test_another_rank_is_killed_and_replaced_and_the_job_goes_on_from_its_checkpoint(self):
        self.replace_killed_rank(1)

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
