"""Gates with a state, as whole jobs: resumed to the bit, recorded, replayed and advised on."""

import json
import os

import harness
from harness import DONE, PREEMPTED, last_step, read_metrics, wait_until

STEPS = 40
GATE = {"kind": "combined", "tau": 0.5, "rho": 0.75, "negatives": 3, "threshold": 0.5, "pool_groups": 3,
        "history_items": 4, "target_dose": 0.9}


class GatesTest(harness.SluiceTest):
    def gated(self, data, steps=STEPS, **changes):
        return harness.rl_spec(data, steps=steps, staleness=0, checkpoint={"every": 0},
                               **{"gate": GATE, "record": True, **changes})

    def run_whole(self, spec, name, reward):
        learner, folder = self.start_rl(spec, name=name)
        actor = self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        actor.kill()
        return folder

    def test_a_gate_with_a_state_survives_an_interruption_and_its_record_answers_for_others(self):
        data = self.prepare(ranker={"sequential": False})
        _, reward, _ = self.start_reward(data)
        spec = self.gated(data)
        folder = self.run_whole(spec, "whole", reward)
        _, rows = self.check_rl_results(folder, STEPS, 16)
        self.assertGreater(sum(row["gate/open"] for row in rows), 0)
        self.assertGreater(sum(row["gate/reliability"] for row in rows), 0)
        lambdas = [row["dose/lambda"] for row in rows]
        self.assertEqual(lambdas[0], 3)
        self.assertGreater(len(set(lambdas)), 5)
        self.assertTrue(all(0.75 <= value <= 12 for value in lambdas), lambdas)

        # Stopped in the middle and run again it ends with the same bytes: weights, gate and dose.
        learner, stopped = self.start_rl(spec, name="stopped")
        actor = self.start_actor("--learner", learner.address, reward=reward)
        wait_until(lambda: last_step(stopped) >= 3, "three steps", alive=[learner])
        actor.pause()
        learner.terminate()
        actor.resume()
        self.assertEqual(learner.wait(), PREEMPTED, learner.said())
        actor.kill()
        self.assertLess(last_step(stopped), STEPS)
        learner, _ = self.start_rl(spec, folder=stopped, name="resumed")
        self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        for name in ("gate/open_rate", "gate/reliability", "dose/lambda", "loss/grpo"):
            self.assertEqual([row[name] for row in read_metrics(stopped) if name in row],
                             [row[name] for row in read_metrics(folder) if name in row], name)
        self.assertEqual(*(harness.sha256(self.path(run, "export", "final", "model.safetensors"))
                           for run in (folder, stopped)))

        # Both records give the verdicts that they hold, and answer for other gates alike.
        arguments = ["--kind", "adagrpo,history,own_cross,pooled,combined", "--negatives", "1,3", "-o", "json"]
        answers = [json.loads(self.ask("replay", run, *arguments)) for run in (folder, stopped)]
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0]["steps"], STEPS)
        first = answers[0]["rows"][0]
        self.assertEqual(first["kind"], "combined")
        self.assertEqual((first["groups"], first["agree"], first["same_reason"]), (16 * STEPS,) * 3)
        self.assertEqual(first["open"], round(16 * sum(row["gate/open"] for row in rows)))
        self.assertEqual(len(answers[0]["rows"]), 11)
        self.assertGreater(len({row["open"] for row in answers[0]["rows"]}), 3)
        self.assertIn("rate", self.ask("replay", folder, "--tau", ".5"))

        advice = json.loads(self.ask("advise", folder, "-o", "json"))
        self.assertEqual(advice["groups"], 16 * STEPS)
        self.assertFalse(advice["gain_table"])
        self.assertIn("What this cannot know", self.ask("advise", folder))

    def test_two_ranks_judge_like_one(self):
        """The first step of one seed, under weights that are the same: its verdicts do not depend on who judged them."""
        cluster = harness.Cluster(self, self.prepare(ranker={"sequential": False}), ranks=2)
        cluster.start_coordinator()
        cluster.start_reward()
        ranks = [cluster.start_rank(f"rank-{i}") for i in range(2)]
        for i in range(2):
            cluster.start_actor(f"actor-{i}")
        gate = {**GATE, "kind": "pooled", "pool_groups": 1}
        for name in ("history_items", "target_dose", "threshold"):
            gate.pop(name)
        # lambda 0: the scores move no weights, so that both jobs see nearly the same groups for a few steps.
        spec = self.gated(cluster.data, steps=3, gate=gate, **{"lambda": 0}, optimizer={"learning_rate": 1e-9})
        watch = cluster.submit(spec)
        self.assertEqual(watch.wait(), DONE, watch.said())
        folder = cluster.run_folder(alive=ranks)
        self.check_rl_results(folder, 3, 16)
        self.assertEqual(sorted(os.listdir(os.path.join(folder, "record"))), ["rank-0000.groups", "rank-0001.groups"])
        row = json.loads(self.ask("replay", folder, "-o", "json"))["rows"][0]
        self.assertEqual((row["groups"], row["agree"], row["same_reason"]), (48, 48, 48))
        alone = self.run_whole(spec, "alone", cluster.reward_address)
        self.assertEqual([r["gate/open_rate"] for r in read_metrics(alone) if "loss/nll" in r],
                         [r["gate/open_rate"] for r in read_metrics(folder) if "loss/nll" in r])

    def test_an_oracle_without_a_truth_is_refused_at_the_start(self):
        data = self.prepare(ranker={"sequential": False})
        learner, _ = self.start_job(harness.rl_spec(data, gate={"kind": "oracle"}), "--address", "127.0.0.1:0")
        self.assertEqual(learner.wait(), harness.USAGE, learner.said())
        self.assertIn("has no truth", learner.said())


if __name__ == "__main__":
    harness.main()
