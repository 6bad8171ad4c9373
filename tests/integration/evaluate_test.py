"""evaluate with actors: the same numbers as without, whatever becomes of the actors."""

import unittest.mock

import harness
from harness import DONE, metric, read_json, wait_until

USERS = 1000


class EvaluateTest(harness.SluiceTest):
    def test_actors_help_to_evaluate_and_one_that_is_killed_in_the_middle_loses_nothing(self):
        with unittest.mock.patch.object(harness, "USERS", USERS):
            data = self.prepare(ranker={"sequential": False})
        sft = {"name": "trained", "kind": "sft", "seed": 5, "data": data, "model": harness.model_spec(),
               "sft": {"passes": 1, "targets_per_step": 2000, "dropout": 0, "optimizer": {"learning_rate": 0.01},
                       "validation": {"every": 1, "users": 20, "beams": 10}}}
        _, model = self.run_job(sft)
        # So many unconstrained beams that it takes seconds: time for what is done to the actors.
        spec = {"name": "evaluate", "kind": "evaluate", "data": data, "model": {"path": model},
                "evaluate": {"beams": 30, "unconstrained_beams": 300}}
        _, folder = self.run_job(spec, name="alone")
        alone = read_json(folder, "results.json")["numbers"]
        self.assertEqual(alone["metrics"]["prompts"], USERS)
        self.assertEqual(alone["run"]["decoded_by_actors"], 0)

        cluster = harness.Cluster(self, data, ranks=1)
        cluster.start_coordinator()
        rank = cluster.start_rank()
        doomed, staying = cluster.start_actor("doomed"), cluster.start_actor("staying")
        wait_until(lambda: metric(rank.metrics, "sluice_actors") >= 2, "both are attached", alive=[rank])
        watch = cluster.submit(spec)

        # Both frozen with a block in hand: the job cannot end without taking it back.
        def freeze_with_blocks():
            if metric(rank.metrics, "sluice_leases_open") < 3:  # an actor has two at most
                return False
            for actor in (doomed, staying):
                actor.pause()
            if metric(rank.metrics, "sluice_leases_open") >= 3:
                return True
            for actor in (doomed, staying):
                actor.resume()
            return False
        wait_until(freeze_with_blocks, "both actors hold blocks", alive=[watch])
        doomed.kill()
        wait_until(lambda: metric(rank.metrics, "sluice_lease_returned_total") > 0, "its blocks are back", alive=[watch])
        self.assertFalse(watch.ended(), "the blocks of the other are still out")
        staying.resume()
        self.assertEqual(watch.wait(), DONE, watch.said())

        helped = read_json(cluster.run_folder(), "results.json")["numbers"]
        self.assertGreater(helped["run"]["decoded_by_actors"], 0)
        self.assertEqual(helped["metrics"], alone["metrics"])
        self.assertEqual(watch.said().count("100 %"), 1, watch.said())
        self.assertFalse(staying.ended())


if __name__ == "__main__":
    harness.main()
