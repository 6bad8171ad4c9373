"""Weights by a broadcast: the same results as by fetching, and nothing that waits for an actor that is gone or stuck."""

import os

import certificates
import harness
from harness import DONE, last_step, metric, wait_until

STEPS = 10


class WeightsTest(harness.SluiceTest):
    def setUp(self):
        self.data = self.prepare(ranker={"sequential": False})
        _, self.reward, _ = self.start_reward(self.data)

    def start_job_with_actors(self, weights, actors, name, actor_flags=(), steps=STEPS, **changes):
        """Each step waits until as many actors as are started here have its version. Returns (learner, run folder,
        actors)."""
        learner, folder = self.start_rl(harness.rl_spec(self.data, steps=steps, **changes), name=name,
                                        flags=("--weights", weights, "--min-actors", actors))
        return learner, folder, [self.start_one(learner, weights, f"{name}-{i}", actor_flags) for i in range(actors)]

    def start_one(self, learner, weights, name, flags=()):
        return self.start_actor("--learner", learner.address, "--weights", weights, *flags, reward=self.reward, name=name)

    def test_a_synchronous_job_ends_with_the_same_bytes_whether_weights_are_broadcast_or_fetched(self):
        ends = {}
        for weights in ("grpc", "gloo"):
            learner, folder, actors = self.start_job_with_actors(weights, 3, name=weights, staleness=0)
            self.assertEqual(learner.wait(), DONE, learner.said())
            self.check_rl_results(folder, STEPS, 16)
            self.assertNotIn("broadcast of weights failed", learner.said())
            for actor in actors:
                received = metric(actor.metrics, "sluice_weight_broadcast_bytes_total")
                fetched = metric(actor.metrics, "sluice_weight_bytes_total")  # with the catalog
                if weights == "gloo":
                    # All versions but the first, to which an actor may have come late.
                    self.assertGreater(received, 3 * fetched, actor.name)
                else:
                    self.assertEqual(received, 0, actor.name)
                actor.kill()
            newest = harness.checkpoints(folder)[-1]
            ends[weights] = [harness.sha256(os.path.join(folder, file)) for file in (
                "export/final/model.safetensors", f"checkpoints/{newest}/optimizer.safetensors", "ledger.csv")]
        self.assertEqual(ends["gloo"], ends["grpc"])

    def test_each_rank_of_a_group_broadcasts_to_its_own_actors(self):
        cluster = harness.Cluster(self, self.data, ranks=2)
        if certificates.available():  # the members meet at the rank by their certificates
            cluster.certificates = certificates.Certificates(self.path("tls"))
        cluster.rank_flags = ["--weights", "gloo", "--min-actors", 1]
        cluster.actor_flags = ["--weights", "gloo"]
        cluster.start_all()
        watch = cluster.submit(harness.rl_spec(self.data, steps=STEPS))
        folder = cluster.run_folder(alive=[watch])
        self.assertEqual(watch.wait(), DONE, watch.said())
        self.check_rl_results(folder, STEPS, 16)
        for process in cluster.members + cluster.actors:
            self.assertGreater(metric(process.metrics, "sluice_weight_broadcast_bytes_total"), 0, process.name)
        for rank in cluster.members:
            self.assertNotIn("broadcast of weights failed", rank.said())
            self.assertEqual(metric(rank.metrics, "sluice_publish_mismatches_total"), 0)

    def test_actors_that_name_another_way_fetch_beside_those_that_take_part(self):
        learner, folder, (member, other) = self.start_job_with_actors("gloo", 2, name="mixed")
        other.kill()
        fetching = self.start_one(learner, "grpc", "fetching")
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.check_rl_results(folder, STEPS, 16)
        self.assertGreater(metric(member.metrics, "sluice_weight_broadcast_bytes_total"), 0)
        self.assertEqual(metric(fetching.metrics, "sluice_weight_broadcast_bytes_total"), 0)
        for actor in (member, fetching):
            self.assertGreaterEqual(metric(actor.metrics, "sluice_policy_version"), STEPS, actor.name)

    def test_a_group_that_cannot_form_costs_no_version_and_is_given_up_for_a_while(self):
        # An address that is not of this machine: the member cannot listen there.
        learner, folder, actors = self.start_job_with_actors("gloo", 2, name="unreachable",
                                                             actor_flags=("--collective-host", "203.0.113.7"))
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.check_rl_results(folder, STEPS, 16)
        self.assertRegex(learner.said(), r"actors fetch them instead for a while failures=3 seconds=300")
        # Whoever fails first says so; the rank fails the round for the other.
        self.assertTrue(any("weights did not come by the broadcast; they will be fetched" in actor.said()
                            for actor in actors), "no actor says why")
        for actor in actors:
            self.assertEqual(metric(actor.metrics, "sluice_weight_broadcast_bytes_total"), 0)

    def test_an_actor_that_is_killed_and_one_that_is_stuck_hold_up_nothing_once_others_are_there(self):
        steps = 40  # so many that the job is not over before it is disturbed
        learner, folder, (killed, stuck, well) = self.start_job_with_actors("gloo", 3, name="rough", steps=steps,
                                                                            lease_deadline_s=3)
        for actor in (killed, stuck, well):
            wait_until(lambda: metric(actor.metrics, "sluice_weight_broadcast_bytes_total") > 0, "it is a member",
                       alive=[actor, learner])
        stuck.pause()
        killed.kill()
        # With one more the next version is published, if the stuck one had the last; it cannot have that one.
        late = [self.start_one(learner, "gloo", "late-0")]
        wait_until(lambda: metric(learner.metrics, "sluice_publish_left_out_total")
                   + metric(learner.metrics, "sluice_publish_fallbacks_total") >= 1, "it is noticed", alive=[learner])
        self.assertLess(last_step(folder), steps)
        late.append(self.start_one(learner, "gloo", "late-1"))
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.check_rl_results(folder, steps, 16)
        for actor in (well, *late):
            self.assertGreaterEqual(metric(actor.metrics, "sluice_policy_version"), steps, actor.name)
        stuck.resume()
        wait_until(lambda: harness.grpc_health(stuck.address) == harness.NOT_SERVING, "the stuck one goes on",
                   alive=[stuck])


if __name__ == "__main__":
    harness.main()
