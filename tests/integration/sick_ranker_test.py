"""The ranker is ill: down, slow, NaN, of the wrong length, of another version, in another order, the same for everything.
It is noticed, nothing of it is believed, and the job is well again when the ranker is."""

import os
import re

import harness
from harness import DONE, HELD, PREEMPTED, last_step, read_metrics, sha256, wait_until

STEPS = 6
# The thresholds of production at a fiftieth of their time.
FAST = {"window_s": 0.3, "silence_s": 0.3, "slow_s": 0.9, "probe_s": 0.1, "probe_max_s": 0.4, "successes": 8,
        "ramp_steps": 2, "canary_s": 0.1}
SLOW_MS = 1000
# Of a ranker that answers, and what the job's log says of it.
ILL = {"down": "down, as the test wants it", "nan": "is nan", "short": "scores, got", "swapped": "got ordinal",
       "version": "of ranker version another one", "shuffled": "the canary is out of range",
       "constant": "the canary is out of range"}


class Sick:
    """A reward server behind tests/integration/sick_reward."""

    def __init__(self, test, data):
        self.mood_file = test.path("mood")
        self.be("well")
        _, server, _ = test.start_reward(data)
        self.process = test.start("sick-reward", os.path.join("..", "tests", "sick-reward"), "127.0.0.1:0", server,
                                  self.mood_file, SLOW_MS)
        self.address = self.process.wait_for(r"serving address=(\S+)").group(1)

    def be(self, mood):
        harness.replace_file(self.mood_file, mood)


def state(address):
    """Of the scores, as the learner's metrics say."""
    try:
        samples = harness.scrape(address)
    except OSError:
        return None
    found = [key for key, value in samples.items() if key.startswith("sluice_learner_reward_state{") and value == 1]
    return found[0].split('"')[1] if len(found) == 1 else None


class SickRankerTest(harness.SluiceTest):
    def start_with(self, values, sick):
        """Returns (learner, run folder, actor)."""
        learner, folder = self.start_rl(values)
        return learner, folder, self.start_actor("--learner", learner.address, reward=sick.address)

    def wait_for_state(self, learner, *wanted):
        wait_until(lambda: state(learner.metrics) in wanted, f"scores are {' or '.join(wanted)}", alive=[learner])

    def test_every_sickness_is_noticed_and_left_behind(self):
        data = self.prepare(ranker={"sequential": False})
        sick = Sick(self, data)
        values = harness.rl_spec(data, steps=100000, on_reward_outage="nll_only", checkpoint={"every": 100000},
                                 reward={"ranker": "cooccurrence", "deadline_s": 1, "park_s": 0.2, "health": FAST})
        learner, folder, _ = self.start_with(values, sick)
        wait_until(lambda: last_step(folder) >= 3, "steps of a healthy ranker", alive=[learner])
        for mood, cause in ILL.items():
            self.wait_for_state(learner, "healthy")
            said, step = len(learner.said()), last_step(folder)
            sick.be(mood)
            self.wait_for_state(learner, "outage", "probing")
            wait_until(lambda: re.search(f"to outage: .*{cause}", learner.said()[said:]), f"the cause: {cause}",
                       alive=[learner])

            def without_rewards():
                return [row for row in read_metrics(folder)
                        if row["step"] > step and row.get("gate/reward_unavailable") == 1]
            row = wait_until(without_rewards, f"a step on logged truth alone when it is {mood}", alive=[learner])[0]
            self.assertEqual(row["degraded"], 1)
            self.assertNotIn("reward/mean", row)
            sick.be("well")
        self.wait_for_state(learner, "healthy")
        step = last_step(folder)
        wait_until(lambda: [row for row in read_metrics(folder)
                            if row["step"] > step and row.get("gate/reward_unavailable") == 0],
                   "a step by reward alone", alive=[learner])
        learner.terminate()
        self.assertEqual(learner.wait(), PREEMPTED, learner.said())
        self.assertGreaterEqual(sum(row.get("degraded", 0) for row in read_metrics(folder)), len(ILL))

    def test_a_slow_ranker_is_given_less_to_do_and_no_group_is_lost(self):
        data = self.prepare(ranker={"sequential": False})
        sick = Sick(self, data)
        values = harness.rl_spec(data, steps=100000, checkpoint={"every": 100000},
                                 reward={"ranker": "cooccurrence", "deadline_s": 60,
                                         "health": dict(FAST, window_s=2, slow_s=0.7)})
        learner, folder, _ = self.start_with(values, sick)
        wait_until(lambda: last_step(folder) >= 1, "a step", alive=[learner])
        sick.be("slow")
        self.wait_for_state(learner, "brownout")
        learner.wait_for("to brownout: .* waited for their scores for more than 700ms")
        sick.be("well")
        self.wait_for_state(learner, "healthy")
        learner.terminate()
        self.assertEqual(learner.wait(), PREEMPTED, learner.said())
        self.assertEqual({row["gate/reward_unavailable"] for row in read_metrics(folder) if "loss/nll" in row}, {0})

    def test_a_short_outage_costs_nothing_and_a_synchronous_job_ends_in_the_same_bytes(self):
        data = self.prepare(ranker={"sequential": False})
        sick = Sick(self, data)
        values = harness.rl_spec(data, steps=STEPS, staleness=0,
                                 reward={"ranker": "cooccurrence", "deadline_s": 1, "park_s": 120, "health": FAST})
        ends = []
        for name in ("calm", "disturbed"):
            values["name"] = name
            learner, folder, actor = self.start_with(values, sick)
            if name == "disturbed":
                wait_until(lambda: last_step(folder) >= 2, "two steps", alive=[learner])
                actor.pause()
                self.assertLess(last_step(folder), STEPS, "the job was too fast to be disturbed")
                sick.be("down")
                actor.resume()
                self.wait_for_state(learner, "outage", "probing")
                self.assertGreater(harness.metric(learner.metrics, "sluice_groups_unscored"), 0)
                sick.be("well")
            self.assertEqual(learner.wait(), DONE, learner.said())
            _, trained = self.check_rl_results(folder, STEPS, 16)
            self.assertEqual([row["gate/reward_unavailable"] for row in trained], [0] * STEPS)
            ends.append(sha256(os.path.join(folder, "export", "final", "model.safetensors")))
        self.assertIn("to outage", learner.said())
        self.assertEqual(ends[0], ends[1])

    def test_a_new_ranker_spends_the_budget_in_time_and_a_resumed_job_takes_it(self):
        data = self.prepare(ranker={"sequential": False})
        sick = Sick(self, data)
        values = harness.rl_spec(data, steps=1000, on_reward_outage="hold", operational_s=0.5,
                                 reward={"ranker": "cooccurrence", "deadline_s": 1, "park_s": 0.1, "health": FAST})
        learner, folder, _ = self.start_with(values, sick)
        wait_until(lambda: last_step(folder) >= 2, "two steps", alive=[learner])
        sick.be("version")
        self.assertEqual(learner.wait(), HELD, learner.said())
        self.assertIn("of ranker version another one, the job's so far of", learner.said())
        self.assertIn("mend the reward server", learner.said())
        held_at = last_step(folder)
        learner, _ = self.start_rl(values, folder=folder, name="resumed")
        self.start_actor("--learner", learner.address, reward=sick.address)
        wait_until(lambda: last_step(folder) >= held_at + 2, "two steps more", alive=[learner])
        self.assertIn("scores are of ranker version another one", learner.said())
        self.assertEqual(read_metrics(folder)[-1]["gate/reward_unavailable"], 0)
        learner.terminate()
        self.assertEqual(learner.wait(), PREEMPTED, learner.said())

    def test_two_ranks_spend_the_budget_by_one_clock(self):
        data = self.prepare(ranker={"sequential": False})
        sick = Sick(self, data)
        cluster = harness.Cluster(self, data, ranks=2)
        cluster.start_coordinator()
        cluster.reward_address = sick.address
        for i in range(2):
            cluster.start_rank(f"rank-{i}")
        for i in range(2):
            cluster.start_actor(f"actor-{i}")
        watch = cluster.submit(harness.rl_spec(
            data, steps=100000, on_reward_outage="hold", operational_s=1, checkpoint={"every": 100000},
            reward={"ranker": "cooccurrence", "deadline_s": 1, "park_s": 0.2, "health": FAST}))
        folder = cluster.run_folder(alive=[watch])
        wait_until(lambda: last_step(folder) >= 2, "two steps", alive=[watch])
        sick.be("nan")
        self.assertEqual(watch.wait(), HELD, watch.said())
        self.assertEqual(cluster.job()["state"], "held")

    def test_describe_says_that_a_job_is_degraded_and_why(self):
        data = self.prepare(ranker={"sequential": False})
        sick = Sick(self, data)
        cluster = harness.Cluster(self, data, ranks=1)
        cluster.start_coordinator()
        rank = cluster.start_rank()
        cluster.reward_address = sick.address
        cluster.start_actor()
        watch = cluster.submit(harness.rl_spec(data, steps=60, reward={
            "ranker": "cooccurrence", "deadline_s": 1, "park_s": 60, "health": FAST}))
        folder = cluster.run_folder(alive=[watch])
        wait_until(lambda: last_step(folder) >= 2, "two steps", alive=[watch])
        sick.be("down")
        wait_until(lambda: state(rank.metrics) in ("outage", "probing"), "an outage", alive=[watch])
        wait_until(lambda: "DEGRADED (rewards: outage: " in str(cluster.job()), "describe says so", alive=[watch])
        sick.be("well")
        wait_until(lambda: "DEGRADED" not in str(cluster.job()), "describe says no more", alive=[watch])
        self.assertEqual(watch.wait(), DONE, watch.said())
        self.assertRegex(watch.said(), "rewards: .* to outage: ")


if __name__ == "__main__":
    harness.main()
