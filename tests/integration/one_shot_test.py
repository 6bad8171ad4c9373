"""prepare, sft and evaluate, each by one `sluice-learner run`, on a world whose rule can be learnt."""

import os
import unittest

import harness
from harness import DONE, read_json


class OneShotTest(harness.SluiceTest):
    def test_supervised_training_learns_the_rule_that_a_random_policy_does_not_know(self):
        data = self.prepare()
        summary = read_json(self.path("tiny"), "results.json")["numbers"]
        self.assertEqual(summary["data"]["users"], harness.USERS)
        self.assertEqual(summary["data"]["items"], harness.ITEMS)
        self.assertEqual(summary["data"]["events"], harness.USERS * harness.EVENTS)
        self.assertEqual(summary["sids"]["semantic_ids"], harness.ITEMS)  # the last level makes them unique
        self.assertGreaterEqual(summary["ranker"]["passes"], 1)

        sft_spec = {"name": "trained", "kind": "sft", "seed": 5, "data": data, "model": harness.model_spec(),
                    "sft": {"passes": 30, "targets_per_step": 100, "dropout": 0, "reverse_probability": 0,
                            "delete_sequence_probability": 0, "optimizer": {"learning_rate": 0.01},
                            "validation": {"every": 10, "users": 0, "beams": 10}}}
        _, sft = self.run_job(sft_spec)
        results = read_json(sft, "results.json")
        self.assertEqual(results["kind"], "sft")
        self.assertTrue(os.path.isfile(os.path.join(sft, "report.html")))
        rows = [row for row in harness.read_metrics(sft) if "loss/nll" in row]
        self.assertLess(rows[-1]["loss/nll"], 0.7 * rows[0]["loss/nll"])

        # The same job at a learning rate of 0 keeps its random weights.
        sft_spec["sft"].update(passes=1, optimizer={"learning_rate": 0})
        _, still_random = self.run_job(sft_spec, name="random")

        evaluate = {"name": "evaluate", "kind": "evaluate", "data": data, "model": {},
                    "evaluate": {"beams": 20, "unconstrained_beams": 5}}
        evaluate["model"]["path"] = sft
        _, folder = self.run_job(evaluate, name="evaluate-trained")
        trained = read_json(folder, "results.json")["numbers"]
        # In bf16 the same policy ranks nearly the same.
        _, folder = self.run_job(evaluate, "--precision", "bf16", name="evaluate-bf16")
        rounded = read_json(folder, "results.json")["numbers"]
        self.assertAlmostEqual(rounded["metrics"]["hr@1"], trained["metrics"]["hr@1"], delta=0.1)
        evaluate["model"]["path"] = still_random
        _, folder = self.run_job(evaluate, name="evaluate-random")
        untrained = read_json(folder, "results.json")["numbers"]
        for numbers in (trained, untrained):
            self.assertEqual(numbers["metrics"]["prompts"], harness.USERS)
            for cutoff, wider in ((1, 5), (5, 10), (10, 20)):
                self.assertLessEqual(numbers["metrics"][f"hr@{cutoff}"], numbers["metrics"][f"hr@{wider}"])
        # About 30 items are left after the history: 0.03 by chance, and at most about 0.9 by knowing the rule.
        self.assertGreater(trained["metrics"]["hr@1"], 0.5)
        self.assertLess(untrained["metrics"]["hr@1"], 0.2)
        self.assertLess(trained["metrics"]["hallucination"], untrained["metrics"]["hallucination"])
        self.assertEqual(trained["baseline"], untrained["baseline"])
        self.assertGreater(trained["baseline"]["hr@1"], 0.3)  # the co-occurrence rule knows it too

        inspected = self.check_call("inspect", "sluice-inspect", "model", os.path.join(sft, "export", "best"), "-o", "json")
        self.assertIn("qwen3", inspected.said().lower())
        self.check_call("inspect", "sluice-inspect", "dataset", data)

    def test_a_job_that_is_resumed_at_a_pass_end_does_not_validate_it_again(self):
        spec = {"name": "sft", "kind": "sft", "seed": 5, "data": self.prepare(ranker={"sequential": False}),
                "model": harness.model_spec(), "checkpoint": {"every": 1},
                "sft": {"passes": 3, "targets_per_step": 300, "validation": {"users": 20, "beams": 10}}}
        _, folder = self.run_job(spec)
        validated = [row["step"] for row in harness.read_metrics(folder) if "validation/hr@10" in row]
        self.assertEqual(len(validated), 3)
        self.assertEqual(len(set(validated)), 3)
        results = read_json(folder, "results.json")["numbers"]

        again, _ = self.run_job(spec, folder=folder, name="again")
        self.assertIn(f"resumed from the checkpoint of step {validated[-1]}", again.said())
        rows = harness.read_metrics(folder)
        self.assertEqual([row["step"] for row in rows if "validation/hr@10" in row], validated)
        repeated = read_json(folder, "results.json")["numbers"]
        self.assertEqual(repeated["final"], results["final"])
        self.assertEqual(repeated["best"], results["best"])

    def test_a_prepared_data_set_is_not_prepared_again(self):
        data = self.prepare(ranker={"sequential": False})
        digests = {name: harness.sha256(os.path.join(data, name)) for name in os.listdir(data)
                   if os.path.isfile(os.path.join(data, name))}
        again, _ = self.run_job(harness.prepare_spec(self.path("events.csv"), data) | {
            "prepare": dict(harness.prepare_spec(self.path("events.csv"), data)["prepare"],
                            ranker={"sequential": False})}, name="again")
        self.assertIn("already prepared", again.said())
        self.assertEqual(digests, {name: harness.sha256(os.path.join(data, name)) for name in digests})

        # Another spec for the same folder is refused, and the folder stays as it is.
        other = harness.prepare_spec(self.path("events.csv"), data)
        other["seed"] = 4
        refused, _ = self.start_job(other, name="other")
        self.assertEqual(refused.wait(), harness.USAGE)
        self.assertIn("was not made by this spec", refused.said())
        self.assertEqual(digests, {name: harness.sha256(os.path.join(data, name)) for name in digests})


if __name__ == "__main__":
    harness.main()
