"""Actors that die, come late and leave."""

import harness
from harness import DONE, last_step, metric, wait_until

STEPS = 8


class ActorsTest(harness.SluiceTest):
    def test_what_a_killed_actor_had_in_hand_is_done_by_one_that_comes_late(self):
        data = self.prepare(ranker={"sequential": False})
        _, reward, _ = self.start_reward(data)
        # The lease would last an hour: it comes back because the stream of the dead actor ends, not by its deadline.
        learner, folder = self.start_rl(harness.rl_spec(data, steps=STEPS, lease_deadline_s=3600))
        first = self.start_actor("--learner", learner.address, reward=reward, name="first")
        wait_until(lambda: last_step(folder) >= 1, "a step", alive=[learner])
        # Frozen at a time when it holds a lease; it is the only actor, so that stays so.
        def freeze_with_a_lease():
            first.pause()
            if metric(learner.metrics, "sluice_leases_open") > 0:
                return True
            first.resume()
            return False
        wait_until(freeze_with_a_lease, "the actor holds a lease", alive=[learner, first])
        first.kill()
        wait_until(lambda: metric(learner.metrics, "sluice_leases_open") == 0, "its lease is back", alive=[learner])
        self.assertGreaterEqual(metric(learner.metrics, "sluice_lease_returned_total"), 1)
        self.assertFalse(learner.ended())

        late = self.start_actor("--learner", learner.address, reward=reward, name="late")
        wait_until(lambda: metric(late.metrics, "sluice_groups_sampled_total") > 0, "the late actor works", alive=[late])
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.check_rl_results(folder, STEPS, 16)

    def test_an_actor_asked_to_leave_finishes_its_lease_and_the_other_does_the_rest(self):
        data = self.prepare(ranker={"sequential": False})
        _, reward, _ = self.start_reward(data)
        learner, folder = self.start_rl(harness.rl_spec(data, steps=STEPS))
        leaving = self.start_actor("--learner", learner.address, reward=reward, name="leaving")
        wait_until(lambda: last_step(folder) >= 1, "a step", alive=[learner])
        leaving.terminate()
        self.assertEqual(leaving.wait(), DONE, leaving.said())
        staying = self.start_actor("--learner", learner.address, reward=reward, name="staying")
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.check_rl_results(folder, STEPS, 16)
        # Its learner is gone, but an actor waits for the next one until it is told to end.
        self.assertFalse(staying.ended())
        self.assertEqual(harness.grpc_health(staying.address), harness.NOT_SERVING)
        staying.terminate()
        self.assertEqual(staying.wait(), DONE, staying.said())


if __name__ == "__main__":
    harness.main()
