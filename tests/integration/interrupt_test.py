"""SIGTERM to a one-shot rl job, and the same command again."""

import os

import harness
from harness import DONE, PREEMPTED, last_step, wait_until

STEPS = 8


class InterruptTest(harness.SluiceTest):
    def spec_of(self, data, **changes):
        # Synchronous: which prompts meet in a batch, and under which weights, is a function of the seed alone.
        return harness.rl_spec(data, steps=STEPS, staleness=0, **changes)

    def check_same_end(self, one, other):
        """Parameters, moments and, of an rl job, the ledger's terminal table: the same bytes."""
        newest = os.path.join("checkpoints", harness.checkpoints(one)[-1])
        files = [os.path.join("export", "final", "model.safetensors"), os.path.join(newest, "optimizer.safetensors")]
        if os.path.exists(os.path.join(one, "ledger.csv")):
            files.append("ledger.csv")
        for file in files:
            self.assertEqual(*(harness.sha256(os.path.join(folder, file)) for folder in (one, other)), file)

    def test_a_synchronous_job_that_was_stopped_and_resumed_ends_with_the_very_same_parameters(self):
        data = self.prepare()
        _, reward, _ = self.start_reward(data)
        # Checkpoints at the end alone: whatever the stopped job resumes from was written because it was stopped.
        spec = self.spec_of(data, checkpoint={"every": 0})

        learner, whole = self.start_rl(spec, name="whole")
        actor = self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        results, trained = self.check_rl_results(whole, STEPS, 16)
        self.assertEqual([row["staleness/max"] for row in trained], [0] * STEPS)
        actor.kill()

        learner, stopped = self.start_rl(spec, name="stopped")
        actor = self.start_actor("--learner", learner.address, reward=reward)
        wait_until(lambda: last_step(stopped) >= 2, "two steps", alive=[learner])
        # Without its actor the job cannot run away from the signal: it is in the middle when that comes.
        actor.pause()
        learner.terminate()
        actor.resume()
        self.assertEqual(learner.wait(), PREEMPTED, learner.said())
        self.assertIn("run again to resume", learner.said())
        self.assertEqual(len(harness.checkpoints(stopped)), 1)
        actor.kill()
        at = last_step(stopped)
        self.assertLess(at, STEPS)
        self.assertFalse(os.path.exists(os.path.join(stopped, "results.json")))

        learner, stopped = self.start_rl(spec, folder=stopped, name="resumed")
        self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.assertIn(f"resumed from the checkpoint of step {at}", learner.said())
        self.check_rl_results(stopped, STEPS, 16)

        self.check_same_end(whole, stopped)

    def test_the_command_of_a_job_that_is_done_changes_nothing(self):
        data = self.prepare(ranker={"sequential": False})
        _, reward, _ = self.start_reward(data)
        spec = harness.rl_spec(data, steps=2)
        learner, folder = self.start_rl(spec)
        actor = self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        actor.kill()
        results, _ = self.check_rl_results(folder, 2, 16)
        final = os.path.join(folder, "export", "final", "model.safetensors")
        rows, parameters = harness.read_metrics(folder), harness.sha256(final)
        self.run_job(spec, "--address", "127.0.0.1:0", folder=folder, name="again")  # without any actor
        again, _ = self.check_rl_results(folder, 2, 16)
        for group in ("best", "final", "ledger"):
            self.assertEqual(again["numbers"][group], results["numbers"][group])
        self.assertEqual(harness.read_metrics(folder), rows)
        self.assertEqual(harness.sha256(final), parameters)

    def test_supervised_training_that_was_stopped_and_resumed_ends_with_the_very_same_parameters(self):
        data = self.prepare(ranker={"sequential": False})
        # Long enough to be stopped in the middle; checkpoints only because of the stop.
        spec = {"name": "sft", "kind": "sft", "seed": 5, "data": data, "model": harness.model_spec(),
                "sft": {"passes": 60, "targets_per_step": 100, "validation": {"every": 20, "users": 20, "beams": 10}},
                "checkpoint": {"every": 0}}
        _, whole = self.run_job(spec, name="whole")
        learner, stopped = self.start_job(spec, name="stopped")
        wait_until(lambda: last_step(stopped) >= 20, "some steps", alive=[learner])
        learner.terminate()
        self.assertEqual(learner.wait(), PREEMPTED, learner.said())
        self.assertFalse(os.path.exists(os.path.join(stopped, "results.json")))
        resumed, _ = self.run_job(spec, folder=stopped, name="resumed")
        self.assertIn("resumed from the checkpoint of step", resumed.said())
        self.check_same_end(whole, stopped)
        steps = [row["step"] for row in harness.read_metrics(stopped) if "loss/nll" in row]
        self.assertEqual(steps, [row["step"] for row in harness.read_metrics(whole) if "loss/nll" in row])

    def test_a_job_without_actors_stops_on_sigterm_too(self):
        data = self.prepare(ranker={"sequential": False})
        learner, folder = self.start_rl(self.spec_of(data))
        wait_until(lambda: harness.metric(learner.metrics, "sluice_groups_open") > 0, "groups are issued", alive=[learner])
        learner.terminate()
        self.assertEqual(learner.wait(), PREEMPTED, learner.said())
        self.assertEqual(len(harness.checkpoints(folder)), 1)

        learner, _ = self.start_rl(self.spec_of(data), folder=folder, name="resumed")
        _, reward, _ = self.start_reward(data)
        self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.check_rl_results(folder, STEPS, 16)

    def test_a_job_killed_without_warning_goes_on_from_its_last_checkpoint(self):
        data = self.prepare(ranker={"sequential": False})
        _, reward, _ = self.start_reward(data)
        spec = harness.rl_spec(data, steps=STEPS, checkpoint={"every": 2, "keep": 2})
        learner, folder = self.start_rl(spec)
        actor = self.start_actor("--learner", learner.address, reward=reward)
        wait_until(lambda: harness.checkpoints(folder), "a checkpoint", alive=[learner])
        actor.pause()  # so that the job is not over before it is killed
        learner.kill()
        self.assertFalse(os.path.exists(os.path.join(folder, "results.json")))
        address = learner.address
        learner, _ = self.start_job(spec, "--address", address, folder=folder, name="resumed")
        actor.resume()  # and finds the new learner at the old address by itself
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.assertRegex(learner.said(), r"resumed from the checkpoint of step [2-8]")
        self.check_rl_results(folder, STEPS, 16)
        self.assertLessEqual(len(harness.checkpoints(folder)), 2)


if __name__ == "__main__":
    harness.main()
