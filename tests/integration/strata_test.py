"""The stratified analysis end to end: cells of held-out users from an rl job that trains nothing, joined with evaluations."""

import json
import os

import harness
from harness import DONE, USAGE, read_json


class StrataTest(harness.SluiceTest):
    def test_held_out_users_are_judged_and_compared_cell_by_cell(self):
        data = self.prepare(ranker={"sequential": False})
        reward, reward_address, _ = self.start_reward(data)
        start_spec = {"name": "start", "kind": "sft", "seed": 5, "data": data, "model": harness.model_spec(),
                      "sft": {"passes": 1, "targets_per_step": 300, "optimizer": {"learning_rate": 0.003},
                              "validation": {"users": 20, "beams": 10}}}
        _, start = self.run_job(start_spec)
        start_spec["sft"].update(passes=20, optimizer={"learning_rate": 0.01})
        _, trained = self.run_job(start_spec, name="trained")

        # 60 users, 16 groups a step: the fourth step begins a second pass over them.
        spec = harness.rl_spec(data, steps=4, prompt_split="test", optimizer={"learning_rate": 0})
        spec["model"] = {"path": start}
        spec["name"] = "cells"
        job, cells = self.start_rl(spec)
        self.start_actor("--learner", job.address, reward=reward_address)
        self.assertEqual(job.wait(), DONE, job.said())
        with open(os.path.join(cells, "contexts.csv"), encoding="utf-8") as file:
            header, *lines = file.read().splitlines()
        rows = [dict(zip(header.split(","), map(float, line.split(",")))) for line in lines]
        self.assertEqual(len(rows), 64)
        self.assertEqual(len({row["user"] for row in rows}), harness.USERS)
        for row in rows:
            self.assertEqual(row["position"], harness.EVENTS - 1)  # the last event is the test event

        # Nothing was trained, and the sums of results.json are those of the rows.
        final, best = (os.path.join(cells, "export", which, "model.safetensors") for which in ("final", "best"))
        self.assertEqual(harness.sha256(final), harness.sha256(os.path.join(start, "export", "best", "model.safetensors")))
        self.assertEqual(harness.sha256(best), harness.sha256(final))
        numbers = read_json(cells, "results.json")["numbers"]
        self.assertEqual(numbers["cell/all"]["groups"], 64)
        for difficult in (0, 1):
            for discriminable in (0, 1):
                for prefix, flag, rank in (("", "discriminable", "rank_ranker"),
                                           ("random_", "random_discriminable", "random_rank_ranker")):
                    inside = [row for row in rows if row["difficult"] == difficult and row[flag] == discriminable]
                    cell = numbers[f"cell/d{difficult}_c{discriminable}"]
                    self.assertAlmostEqual(cell[prefix + "share"], len(inside) / 64)
                    if inside:
                        mean = sum(row["rank_policy"] - row[rank] for row in inside) / len(inside)
                        self.assertAlmostEqual(cell[prefix + "rank_correction"], mean)

        evaluations = []
        for name, model in (("start", start), ("trained", trained)):
            evaluate = {"name": "evaluate", "kind": "evaluate", "data": data, "model": {"path": model},
                        "evaluate": {"beams": 20}}
            _, folder = self.run_job(evaluate, name=f"evaluate-{name}")
            evaluations.append(folder)
        compared = self.path("cells.json")
        said = self.check_call("compare", "sluice-learner", "compare", f"start={evaluations[0]}",
                               f"trained={evaluations[1]}", "--cells", cells, "--metrics", "hr@10", "--json", compared)
        self.assertIn("== D1 C1", said.said())
        first = {row["user"]: row for row in reversed(rows)}  # a user's first context counts
        hits = [self.hits(folder) for folder in evaluations]
        for cell, comparison in read_json(compared).items():
            flag = "random_discriminable" if cell.endswith("random") else "discriminable"
            users = [user for user, row in first.items()
                     if row["difficult"] == int(cell[1]) and row[flag] == int(cell[4])]
            self.assertEqual(comparison["users"], len(users))
            gain = sum(hits[1][user] - hits[0][user] for user in users) / len(users)
            self.assertAlmostEqual(comparison["differences"][0]["mean"], gain)

    def hits(self, folder):
        """{user: 1 if the target is among the first ten} by outcomes.csv."""
        with open(os.path.join(folder, "outcomes.csv"), encoding="utf-8") as file:
            json.loads(file.readline()[2:])
            columns = file.readline().strip().split(",")
            rows = [dict(zip(columns, line.strip().split(","))) for line in file]
        return {float(row["user"]): int(1 <= int(row["item_rank"]) <= 10) for row in rows}

    def test_training_on_held_out_events_is_refused(self):
        spec = harness.rl_spec("nowhere", prompt_split="validation")
        refused, _ = self.start_job(spec)
        self.assertEqual(refused.wait(), USAGE)
        self.assertIn("would train on the held-out events", refused.said())


if __name__ == "__main__":
    harness.main()
