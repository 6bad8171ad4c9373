"""Objectives other than the default, as whole jobs: controls of the gate, and one with a reference policy that moves."""

import os

import harness
from harness import DONE, PREEMPTED, last_step, wait_until

STEPS = 8


class MethodsTest(harness.SluiceTest):
    def run_rl(self, spec, name, reward=None, steps=STEPS):
        learner, folder = self.start_rl(spec, name=name)
        actor = self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        actor.kill()
        return self.check_rl_results(folder, steps, 16)

    def run_preempted(self, spec):
        """Runs the job to its end with a preemption after three steps or more; returns its run folder."""
        learner, folder = self.start_rl(spec, name="stopped")
        actor = self.start_actor("--learner", learner.address)
        wait_until(lambda: last_step(folder) >= 3, "three steps", alive=[learner])
        actor.pause()
        learner.terminate()
        actor.resume()
        self.assertEqual(learner.wait(), PREEMPTED, learner.said())
        actor.kill()
        learner, _ = self.start_rl(spec, folder=folder, name="resumed")
        self.start_actor("--learner", learner.address)
        self.assertEqual(learner.wait(), DONE, learner.said())
        return folder

    def test_a_random_gate_admits_as_many_and_an_equal_dose_as_much_as_the_gate(self):
        data = self.prepare(ranker={"sequential": False})
        _, reward, _ = self.start_reward(data)

        def spec(control):
            return harness.rl_spec(data, steps=STEPS, staleness=0,
                                   gate={"tau": 0.5, "rho": 0.75, "negatives": 1, "control": control})

        results, rows = self.run_rl(spec("random"), "random", reward)
        self.assertGreater(sum(row["group/gate_open_share"] for row in rows), 0)
        for row in rows:
            self.assertAlmostEqual(row["gate/control_open"], row["group/gate_open_share"], places=9, msg=row)
            self.assertEqual(row["gate/open"], 0, row)
        self.assertEqual(results["numbers"]["gate"]["judged"], 16 * STEPS)
        # The first step of both jobs is judged under the same weights.
        _, doses = self.run_rl(spec("equal_dose"), "dose", reward)
        self.assertEqual(doses[0]["group/gate_open_share"], rows[0]["group/gate_open_share"])
        for row in doses:
            self.assertAlmostEqual(row["gate/open_rate"], row["group/gate_open_share"], places=9, msg=row)
            self.assertEqual(row["gate/control_open"], 1 if row["group/gate_open_share"] > 0 else 0, row)

    def test_a_moving_reference_survives_an_interruption_and_rule_rewards_need_no_ranker(self):
        data = self.prepare(ranker={"sequential": False})
        steps = 60  # quick ones: long enough to be stopped in the middle
        spec = harness.rl_spec(data, steps=steps, staleness=0, objective="grpo_only", negative_weight=1,
                               checkpoint={"every": 0}, reward={"kind": "ranking"}, advantage={"sibling_weight": 0.5},
                               kl={"beta": 0.5, "reference": "mixed", "mix_every": 2, "mix": 0.5})
        _, rows = self.run_rl(spec, "whole", steps=steps)
        self.assertAlmostEqual(rows[0]["kl/mean"], 0, places=9)  # the reference is the start
        self.assertGreater(rows[10]["kl/mean"], 0)
        self.assertNotEqual(max(row["loss/grpo"] for row in rows), 0)
        whole = harness.sha256(self.path("whole", "export", "final", "model.safetensors"))

        folder = self.run_preempted(spec)
        _, rows = self.check_rl_results(folder, steps, 16)
        self.assertGreater(rows[-1]["kl/mean"], 0)
        self.assertEqual(harness.sha256(self.path(folder, "export", "final", "model.safetensors")), whole)

    def test_vstar_searches_by_a_value_that_it_trains_and_resumes_to_the_same_bytes(self):
        data = self.prepare(ranker={"sequential": False})
        self.assertTrue(os.path.isfile(self.path("data", "item_vectors.npy")))
        steps = 40
        spec = harness.rl_spec(data, steps=steps, staleness=0, objective="grpo_only", negative_weight=1,
                               checkpoint={"every": 0}, reward={"kind": "ranking"}, sampler="value_guided",
                               advantage={"sibling_weight": 1}, kl={"beta": 0.01, "reference": "frozen"},
                               value={"loss_weight": 1}, item_vectors="data")
        spec["model"]["value_head"] = True
        _, rows = self.run_rl(spec, "whole", steps=steps)
        for row in rows:
            self.assertGreater(row["value/loss"], 0, row)
            self.assertEqual(row["group/diversity"], 1, row)  # no duplicates
        first, last = ([row["value/loss"] for row in part] for part in (rows[:5], rows[-5:]))
        self.assertLess(sum(last), sum(first))
        for file in ("model.safetensors", "sluice_value.safetensors"):
            self.assertTrue(os.path.isfile(self.path("whole", "export", "final", file)), file)

        def digests(folder):
            return [harness.sha256(os.path.join(folder, "export", "final", file))
                    for file in ("model.safetensors", "sluice_value.safetensors")]

        folder = self.run_preempted(spec)
        self.assertEqual(digests(folder), digests(self.path("whole")))

        # An export with a head starts the next job, here on beams; one without a head gets it.
        spec["model"] = {"path": self.path("whole"), "value_head": True}
        spec["rl"].update(sampler="beam", steps=STEPS)
        _, rows = self.run_rl(spec, "next")
        self.assertGreater(rows[0]["value/loss"], 0)
        plain = harness.rl_spec(data, steps=STEPS, objective="grpo_only", negative_weight=1, reward={"kind": "rule"})
        self.run_rl(plain, "plain")
        spec["model"]["path"] = self.path("plain")
        self.run_rl(spec, "added")

    def test_dynamic_samples_and_semantic_rewards_run_without_a_ranker(self):
        data = self.prepare(ranker={"sequential": False})
        spec = harness.rl_spec(data, steps=STEPS, objective="grpo_only", negative_weight=1, sampler="dynamic",
                               reward={"kind": "semantic"}, item_vectors="data")
        _, rows = self.run_rl(spec, "semantic")
        for row in rows:
            self.assertAlmostEqual(row["reward/target_mean"], 1, places=9)
            self.assertGreater(row["reward/mean"], -1)
            self.assertLess(row["reward/mean"], 1)
        self.assertNotEqual(max(row["loss/grpo"] for row in rows), 0)


if __name__ == "__main__":
    harness.main()
