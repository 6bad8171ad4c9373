"""A market whose truth is known, through whole jobs: generated, trained on, scored by rankers of known error, measured."""

import json
import os

import harness
from harness import DONE, USAGE, read_json

MARKET = {"regions": 4, "cells": 4, "items_per_cell": 3, "leaf_codes": 6, "dim": 6, "slate": 20, "history": 5,
          "sft_users": 60, "rl_users": 40, "heldout_users": 30}


def digests(folder):
    """Of all files but those that name the spec, which names the folder."""
    return {os.path.relpath(os.path.join(place, name), folder): harness.sha256(os.path.join(place, name))
            for place, _, names in os.walk(folder) for name in names
            if name not in ("prepare_spec.sha256", "manifest.json")}


class MarketTest(harness.SluiceTest):
    def market(self, name="market", seed=3, **changes):
        data = self.path(name + "-data")
        self.run_job({"name": "market", "kind": "prepare", "seed": seed,
                      "prepare": {"output": data, "max_history": 5, "market": dict(MARKET, **changes),
                                  "ranker": {"sequential": False}}}, name=name)
        return data

    def test_a_market_is_the_same_to_the_byte_for_a_seed(self):
        first, second, other = self.market("first"), self.market("second"), self.market("other", seed=4)
        self.assertEqual(digests(first), digests(second))
        self.assertIn("truth/user_vectors.npy", digests(first))
        self.assertNotEqual(digests(first)["event_item.npy"], digests(other)["event_item.npy"])

    def test_jobs_train_on_it_and_measure_what_the_log_does_not_show(self):
        data = self.market()
        validation = {"users": 0, "beams": 10, "exclude_history": False}
        _, sft = self.run_job({"name": "sft", "kind": "sft", "seed": 5, "data": data, "model": harness.model_spec(),
                               "sft": {"passes": 3, "targets_per_step": 100, "validation": validation}}, name="sft")
        final = read_json(sft, "results.json")["numbers"]["final"]
        self.assertGreater(final["validation/mass@10"], 0)
        self.assertLess(final["validation/mass@10"], 1)

        _, evaluated = self.run_job({"name": "e", "kind": "evaluate", "data": data, "model": {"path": sft},
                                     "evaluate": {"beams": 48, "exclude_history": False}}, name="evaluate")
        numbers = read_json(evaluated, "results.json")["numbers"]
        best, exposed, policy = (numbers[key] for key in ("by_utility", "by_exposed_utility", "metrics"))
        for other in (exposed, policy, numbers["baseline"]):
            self.assertGreater(best["mass@10"], other["mass@10"])
            self.assertGreater(best["utility@10"], other["utility@10"])
        self.assertEqual(policy["prompts"], 30)

        _, reward, _ = self.start_reward(data)
        spec = harness.rl_spec(data, steps=4, staleness=0, prompt_split="reserved", exclude_history=False,
                               objective="mixture", reward={"ranker": "truth:pop~@log:0.5", "deadline_s": 5},
                               validation=dict(validation, every=0))
        spec["model"] = {"path": sft}
        learner, folder = self.start_rl(spec, name="rl")
        self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        results, rows = self.check_rl_results(folder, 4, 16)
        self.assertIn("validation/mass@10", results["numbers"]["start"])
        for row in rows:
            self.assertIn("reward/target_mean", row)  # the ranker that was named has scored
            self.assertEqual(row["gate/open_rate"], 1, row)

    def test_an_oracle_gate_opens_where_the_ranker_is_right(self):
        data = self.market()
        _, reward, _ = self.start_reward(data)
        rates = {}
        for ranker in ("truth", "truth:pop:0.5", "truth:pop:1"):
            spec = harness.rl_spec(data, steps=2, staleness=0, prompt_split="reserved",
                                   gate={"kind": "oracle", "use_difficulty": False},
                                   reward={"ranker": ranker, "deadline_s": 5})
            learner, folder = self.start_rl(spec, name=ranker.replace(":", "-"))
            self.start_actor("--learner", learner.address, reward=reward)
            self.assertEqual(learner.wait(), DONE, learner.said())
            results, rows = self.check_rl_results(folder, 2, 16)
            rates[ranker] = [row["gate/open_rate"] for row in rows]
            for row in rows:
                self.assertAlmostEqual(row["gate/open"] + row["gate/reliability"], 1)
        self.assertEqual(rates["truth"], [1, 1])
        self.assertEqual(rates["truth:pop:1"], [0, 0])
        self.assertTrue(all(0 < rate < 1 for rate in rates["truth:pop:0.5"]), rates)

        # A record holds the truth whatever the gate, so that replay knows how precise each one is.
        spec = harness.rl_spec(data, steps=2, staleness=0, prompt_split="reserved", record=True,
                               reward={"ranker": "truth:pop:0.5", "deadline_s": 5})
        learner, folder = self.start_rl(spec, name="recorded")
        self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        replay = json.loads(self.ask("replay", folder, "--kind", "oracle", "--set", "rl.gate.use_difficulty=false", "-o",
                                     "json"))
        truth = replay["rows"][-1]["truth"]
        self.assertEqual(truth["known"], 2 * 16)
        self.assertEqual(truth["open"], truth["reliable"])
        self.assertEqual(truth["open"], truth["open_reliable"])

        unknown, _ = self.start_job(harness.rl_spec(data, prompt_split="reserved", gate={"kind": "oracle"}),
                                    "--address", "127.0.0.1:0", name="unknown")
        self.assertEqual(unknown.wait(), USAGE)
        self.assertIn("knows where a ranker of known error is right", unknown.said())

    def test_what_is_not_there_is_refused_in_words(self):
        data = self.market(rl_users=0)
        refused, _ = self.start_job(harness.rl_spec(data, prompt_split="reserved"), "--address", "127.0.0.1:0", name="none")
        self.assertEqual(refused.wait(), USAGE)
        self.assertIn("no event that is reserved for rl", refused.said())

        real = self.prepare(ranker={"sequential": False})
        truthless, _ = self.start_job(harness.rl_spec(real, reward={"ranker": "truth:pop:0.5"}),
                                      "--address", "127.0.0.1:0", name="truthless")
        self.assertEqual(truthless.wait(), USAGE)
        self.assertIn("this data set has no truth", truthless.said())

        misspelt, _ = self.start_job(harness.rl_spec(data, reward={"ranker": "truth:pops:0.5"}),
                                     "--address", "127.0.0.1:0", name="misspelt")
        self.assertEqual(misspelt.wait(), USAGE)
        self.assertIn('no kind of error is called "pops"', misspelt.said())

    def test_real_events_can_be_reserved_and_a_rankers_log_biased(self):
        harness.write_events(self.path("events.csv"))
        data = self.path("biased")
        spec = harness.prepare_spec(self.path("events.csv"), data)
        spec["prepare"]["rl_events"] = 2
        spec["prepare"]["ranker"]["bias"] = {"missing": 1, "position": 0.5, "slate": 5}
        _, folder = self.run_job(spec, name="prepare")
        numbers = read_json(folder, "results.json")["numbers"]
        self.assertGreater(numbers["ranker"]["events_left_share"], 0.05)
        self.assertLess(numbers["ranker"]["events_left_share"], 0.95)
        self.assertIn("validation/hr@10", numbers["ranker_unbiased"])
        files = digests(data)
        self.assertNotEqual(files["sequential_ranker/model.safetensors"],
                            files["sequential_ranker_unbiased/model.safetensors"])

        _, reward, _ = self.start_reward(data)
        learner, folder = self.start_rl(harness.rl_spec(data, steps=2, staleness=0, prompt_split="reserved",
                                                        objective="mixture",
                                                        reward={"ranker": "unbiased", "deadline_s": 5}), name="rl")
        self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        _, rows = self.check_rl_results(folder, 2, 16)
        for row in rows:
            self.assertEqual(row["gate/open_rate"], 1, row)


if __name__ == "__main__":
    harness.main()
