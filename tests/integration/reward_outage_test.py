"""The reward server is down, or goes down and comes back: no score becomes a number, and the spec says what happens."""

import json
import os

import harness
from harness import DONE, HELD, TRANSIENT, last_step, wait_until

STEPS = 6
# Groups do not wait to be tried again.
NO_DELAY = {"ranker": "cooccurrence", "deadline_s": 0.2, "park_s": 0}


def waits_for_scores(journal):
    """Whether an actor's journal has a lease that was sampled and not scored yet."""
    leases = {"sampled": set(), "scored": set()}
    for name in sorted(os.listdir(journal)):
        with open(os.path.join(journal, name), encoding="utf-8") as file:
            for line in (json.loads(line) for line in file if line.endswith("\n")):
                leases.get(line["event"], set()).add(line.get("lease"))
    return bool(leases["sampled"] - leases["scored"])


class RewardOutageTest(harness.SluiceTest):
    def test_the_job_trains_on_logged_truth_alone_if_its_spec_allows_that(self):
        data = self.prepare(ranker={"sequential": False})
        learner, folder = self.start_rl(harness.rl_spec(data, steps=STEPS, on_reward_outage="nll_only",
                                                        operational_steps=1, reward=NO_DELAY))
        self.start_actor("--learner", learner.address, reward=harness.free_address())
        self.assertEqual(learner.wait(), DONE, learner.said())
        _, trained = self.check_rl_results(folder, STEPS, 16)
        for row in trained:
            self.assertEqual(row["gate/reward_unavailable"], 1, row)
            self.assertEqual(row["gate/open_rate"], 0, row)
            # What was never measured has no value; a 0 would be a made-up score.
            self.assertNotIn("reward/mean", row)
            self.assertNotIn("reward/target_mean", row)
            self.assertGreater(row["loss/nll"], 0)
        self.assertLess(trained[-1]["loss/nll"], trained[0]["loss/nll"])

    def test_the_job_holds_when_the_budget_is_spent_and_goes_on_once_scores_are_back(self):
        data = self.prepare(ranker={"sequential": False})
        spec = harness.rl_spec(data, steps=STEPS, on_reward_outage="hold", operational_steps=2, reward=NO_DELAY)
        address = harness.free_address()
        learner, folder = self.start_rl(spec)
        actor = self.start_actor("--learner", learner.address, reward=address)
        self.assertEqual(learner.wait(), HELD, learner.said())
        self.assertIn("mend the reward server", learner.said())
        self.assertFalse(os.path.exists(os.path.join(folder, "results.json")))
        held_at = last_step(folder)
        self.assertEqual(held_at, 3)  # two are in the budget, the third is past it
        self.assertEqual(harness.checkpoints(folder)[-1], "step-00000003")
        actor.kill()

        self.start_reward(data, address=address)
        learner, _ = self.start_rl(spec, folder=folder, name="resumed")
        self.start_actor("--learner", learner.address, reward=address)
        self.assertEqual(learner.wait(), DONE, learner.said())
        _, trained = self.check_rl_results(folder, STEPS, 16)
        for row in trained:
            self.assertEqual(row["gate/reward_unavailable"], 1 if row["step"] <= held_at else 0, row)
            self.assertEqual("reward/mean" in row, row["step"] > held_at, row)

    def test_a_held_job_of_a_cluster_is_resumed_under_its_id(self):
        cluster = harness.Cluster(self, self.prepare(ranker={"sequential": False}), ranks=1)
        cluster.start_coordinator()
        cluster.start_rank()
        cluster.reward_address = harness.free_address()  # nobody there
        actor = cluster.start_actor()
        watch = cluster.submit(harness.rl_spec(cluster.data, steps=STEPS, on_reward_outage="hold", operational_steps=2,
                                               reward=NO_DELAY))
        self.assertEqual(watch.wait(), HELD, watch.said())
        job = cluster.job()
        self.assertEqual((job["state"], job["exit_code"]), ("held", HELD))
        actor.kill()
        cluster.start_reward()
        cluster.start_actor()
        resumed = cluster.ctl("resume", job["job_id"], name="resume")
        self.assertEqual(resumed.wait(), DONE, resumed.said())
        self.assertIn("step-00000003", resumed.said())
        ended = cluster.ctl("wait", job["job_id"], name="wait")
        self.assertEqual(ended.wait(), DONE, ended.said())
        _, trained = self.check_rl_results(cluster.run_folder(), STEPS, 16)
        self.assertEqual([row["gate/reward_unavailable"] for row in trained], [1, 1, 1, 0, 0, 0])
        refused = cluster.ctl("resume", job["job_id"], name="refused")
        self.assertNotEqual(refused.wait(), DONE)
        self.assertIn("succeeded", refused.said())

    def test_the_job_fails_instead_if_its_spec_says_so(self):
        data = self.prepare(ranker={"sequential": False})
        learner, folder = self.start_rl(harness.rl_spec(data, steps=STEPS, on_reward_outage="fail", operational_steps=1,
                                                        reward=NO_DELAY))
        self.start_actor("--learner", learner.address, reward=harness.free_address())
        self.assertEqual(learner.wait(), TRANSIENT, learner.said())
        self.assertIn("closed for operational reasons", learner.said())
        self.assertFalse(os.path.exists(os.path.join(folder, "results.json")))

    def test_a_restart_of_the_reward_server_costs_nothing_within_the_deadline_of_a_call(self):
        data = self.prepare(ranker={"sequential": False})
        reward, address, _ = self.start_reward(data)
        learner, folder = self.start_rl(harness.rl_spec(data, steps=STEPS,
                                                        reward={"ranker": "cooccurrence", "deadline_s": 60}))
        actor = self.start_actor("--learner", learner.address, reward=address)
        wait_until(lambda: last_step(folder) >= 2, "two steps", alive=[learner])
        actor.pause()
        reward.kill()
        actor.resume()
        self.start_reward(data, address=address)
        self.assertEqual(learner.wait(), DONE, learner.said())
        _, trained = self.check_rl_results(folder, STEPS, 16)
        self.assertEqual([row["gate/reward_unavailable"] for row in trained], [0] * STEPS)

    def test_an_actor_whose_reward_server_is_silent_ends_within_its_budget(self):
        data = self.prepare(ranker={"sequential": False})
        reward, address, _ = self.start_reward(data)
        # Longer than any test waits.
        patient = {"ranker": "cooccurrence", "deadline_s": 600}
        journal = self.path("journal")
        learner, folder = self.start_rl(harness.rl_spec(data, steps=STEPS, reward=patient, lease_deadline_s=3600))
        actor = self.start_actor("--learner", learner.address, "--drain-timeout", 1, "--journal", journal,
                                 reward=address)
        wait_until(lambda: last_step(folder) >= 1, "a step", alive=[learner])
        reward.pause()
        wait_until(lambda: waits_for_scores(journal), "a lease that waits for scores", alive=[learner, actor])
        actor.terminate()
        self.assertEqual(actor.wait(), DONE, actor.said())
        self.assertIn("the lease in hand is given back", actor.said())
        reward.resume()
        self.start_actor("--learner", learner.address, reward=address)
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.check_rl_results(folder, STEPS, 16)


if __name__ == "__main__":
    harness.main()
