"""Functions of Python as rankers of a reward server, by the Open Inference Protocol: a job that trains on one, and what a
user sees when mapping, function or server are wrong."""
import json
import os
import sys

import support

support.require("grpc", "numpy")
sys.path.insert(0, os.path.join(support.TOP, "tests", "integration"))
import harness  # noqa: E402
import numpy  # noqa: E402
import sluice  # noqa: E402

if not os.path.exists(os.path.join(harness.BIN, "sluice-reward")):
    support.skip(f"there is no sluice-reward in {harness.BIN}")

STEPS = 4


def next_in_the_world(user, history, item):
    """What the tiny world does: the item a stride after the latest one. History is padded on the right."""
    latest = history[numpy.arange(len(history)), (history >= 0).sum(axis=1) - 1]
    return numpy.where((latest + harness.STRIDE) % harness.ITEMS == item, 1.0, 0.0) + item / 1000


class OwnRankerTest(harness.SluiceTest):
    def serve(self, fn, **options):
        server = sluice.serve_ranker(fn, address="127.0.0.1:0", **options)
        self.addCleanup(server.stop, 0)
        return server

    def mapping(self, address, **changes):
        values = {"name": "mine", "open_inference": {"address": address, "model": "ranker"},
                  "inputs": {"user": {"from": "user"}, "history": {"from": "history"}, "item": {"from": "item"}},
                  "outputs": {"score": {}}}
        values.update(changes)
        path = self.path("mine.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=1)  # JSON is YAML too
        return path

    def golden(self, scores):
        return {"groups": [{"user": 0, "history": [1, 2], "items": [9, 3], "scores": {"score": scores}}]}

    def start_with(self, data, mapping, *flags):
        reward = self.start("reward", "sluice-reward", "--data", data, "--address", "127.0.0.1:0", "--ranker", mapping, *flags)
        return reward, reward.wait_for(r"serving address=(\S+)").group(1)

    def refused(self, data, mapping, code):
        reward = self.call("refused", "sluice-reward", "--data", data, "--ranker", mapping, "--check")
        self.assertEqual(reward.code(), code, reward.said())
        return reward.said()

    def test_a_job_trains_on_a_function_of_python(self):
        data = self.prepare(ranker={"sequential": False})
        calls = []

        def score(user, history, item):
            calls.append((user.shape, history.shape, item.shape))
            return {"score": next_in_the_world(user, history, item), "number": item}

        server = self.serve(score, heads=("score", "number"), version="2024-05")
        mapping = self.mapping(server.address, outputs={"score": {}, "number": {}})
        checked = self.check_call("check", "sluice-reward", "--data", data, "--ranker", mapping, "--check")
        self.assertRegex(checked.said(), r"ranker ready ranker=mine version=[0-9a-f]{64}")
        _, reward = self.start_with(data, mapping)
        learner, folder = self.start_rl(harness.rl_spec(data, steps=STEPS, objective="mixture",
                                                        reward={"ranker": "mine", "deadline_s": 20}))
        self.start_actor("--learner", learner.address, reward=reward)
        self.assertEqual(learner.wait(), harness.DONE, learner.said())
        _, rows = self.check_rl_results(folder, STEPS, 16)
        for row in rows:
            self.assertGreater(row["reward/mean"], 0)
            self.assertLess(row["reward/mean"], 1.04)
        # Batches, not one call a pair: some blocks of 4 groups met.
        self.assertTrue(all(user[0] == history[0] == item[0] for user, history, item in calls), calls)
        self.assertGreater(max(item[0] for _, _, item in calls), 16)

    def test_wrong_mappings_and_other_scores_are_refused_at_start_in_words(self):
        data = self.prepare(ranker={"sequential": False})
        server = self.serve(next_in_the_world)
        said = self.refused(data, self.mapping(server.address, inputs={"user": {"from": "user", "type": "INT32"},
                                                                       "history": {"from": "history"},
                                                                       "items": {"from": "item"}}), harness.USAGE)
        self.assertRegex(said, r"mine.yaml:\d+:\d+: inputs.user.type: the model wants INT64, the mapping gives INT32")
        self.assertIn("inputs.items: the model has no input of this name, it has user, history, item", said)
        said = self.refused(data, self.mapping(server.address, golden=self.golden([1.009, 0.5])), harness.PERMISSION)
        self.assertRegex(said, r"head score of item 3 after user 0's history is 0.003, .*golden.groups\[0\] has 0.5")
        said = self.refused(data, self.mapping(server.address, name="cooccurrence"), harness.USAGE)
        self.assertIn("there is a ranker cooccurrence already", said)
        nobody = self.mapping(harness.free_address(), open_inference={"address": harness.free_address(), "model": "ranker",
                                                                      "start_s": 0})
        self.assertIn("open_inference", self.refused(data, nobody, harness.TRANSIENT))
        good = self.mapping(server.address, golden=self.golden([1.009, 0.003]))
        self.check_call("check", "sluice-reward", "--data", data, "--ranker", good, "--check")

    def test_a_stop_does_not_wait_for_a_model_that_is_not_there(self):
        data = self.prepare(ranker={"sequential": False})
        where = {"address": harness.free_address(), "model": "ranker", "start_s": 600}
        reward = self.start("reward", "sluice-reward", "--data", data, "--ranker", self.mapping("", open_inference=where))
        reward.wait_for("opening ranker")
        reward.terminate()
        self.assertEqual(reward.wait(), harness.DONE)
        self.assertIn("stopped while starting", reward.said())

    def test_functions_that_raise_return_too_few_or_nan_are_refused(self):
        data = self.prepare(ranker={"sequential": False})
        for fn, words in ((lambda user, history, item: 1 / 0, "the ranker function raised ZeroDivisionError"),
                          (lambda user, history, item: item[1:], "must return 'score' [1], got shape [0]"),
                          (lambda user, history, item: item * numpy.nan, "returned nan as 'score'")):
            server = self.serve(fn)
            self.assertIn(words, self.refused(data, self.mapping(server.address), harness.FAILED))

    def test_a_server_is_ready_while_its_model_scores_as_it_did(self):
        data = self.prepare(ranker={"sequential": False})
        shift = [0.0]
        server = self.serve(lambda user, history, item: next_in_the_world(user, history, item) + shift[0])
        reward, address = self.start_with(data, self.mapping(server.address, golden=self.golden([1.009, 0.003])),
                                          "--check-every", "0.1")

        def is_ready(ready):
            want = harness.SERVING if ready else harness.NOT_SERVING
            harness.wait_until(lambda: harness.grpc_health(address) == want, f"ready: {ready}", alive=[reward])

        is_ready(True)
        shift[0] = 0.5
        is_ready(False)
        reward.wait_for("ranker not ready .*this is another model than the mapping was written for")
        shift[0] = 0.0
        is_ready(True)
        server.stop(0)
        is_ready(False)
        reward.terminate()
        self.assertEqual(reward.wait(), harness.DONE)


if __name__ == "__main__":
    harness.main()
