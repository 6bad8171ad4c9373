"""./sluice matrix on the tiny world: arms and seeds to a table, through a kill in the middle and a failing arm."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import unittest

import harness
from harness import DONE, FAILED, INTEGRITY, LIMIT_S, USAGE, read_json, wait_until

MATRIX = os.path.join(harness.TOP, "tools", "matrix.py")


@unittest.skipUnless(importlib.util.find_spec("yaml"), "this Python has no yaml; Debian's package is python3-yaml")
class MatrixTest(harness.SluiceTest):
    def write(self, name, values):
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(values, file)  # JSON is YAML
        return path

    def matrix(self, **changes):
        """The file of a small matrix, its specs beside it."""
        events = harness.write_events(self.path("events.csv"))
        prepare = harness.prepare_spec(events, "unused")
        prepare["prepare"]["ranker"] = {"sequential": False}
        del prepare["prepare"]["output"]
        self.write("prepare.yaml", prepare)
        self.write("sft.yaml", {"name": "sft", "kind": "sft", "data": "unused", "model": harness.model_spec(),
                                "sft": {"passes": 3, "targets_per_step": 300, "optimizer": {"learning_rate": 0.01},
                                        "validation": {"users": 20, "beams": 10}}})
        rl = harness.rl_spec("unused", steps=4)
        rl["model"] = {"path": "unused"}
        self.write("rl.yaml", rl)
        self.write("evaluate.yaml", {"name": "evaluate", "kind": "evaluate", "data": "unused",
                                     "model": {"path": "unused"}, "evaluate": {"beams": 20}})
        values = {
            "name": "tiny", "prepare": {"spec": "prepare.yaml"}, "start": {"spec": "sft.yaml"}, "base": "rl.yaml",
            "seeds": [1, 2],
            "arms": [{"name": "nll_only", "set": ["rl.objective=nll_only"]},
                     {"name": "adagrpo", "set": {"rl.lambda": 2}}],
            "evaluations": {"tune": {"spec": "evaluate.yaml",
                                     "set": ["evaluate.split=validation", "evaluate.user_parity=even"]},
                            "test": {"spec": "evaluate.yaml", "set": ["evaluate.user_parity=odd"]}},
            "against": ["start", "nll_only"], "metrics": ["hr@1", "hr@10", "hr@50", "coverage"], "resamples": 200}
        values.update(changes)
        return self.write("matrix.yaml", values)

    def start_matrix(self, path, *flags, name="matrix"):
        log = self.path(f"{len(self.processes):02d}-{name}.log")
        process = harness.Process(name, [sys.executable, "-B", MATRIX, path, "--out", self.path("out"), "--jobs", "1",
                                         *flags], log)
        self.processes.append(process)
        return process

    def run_matrix(self, path, *flags, code=DONE, name="matrix"):
        process = self.start_matrix(path, *flags, name=name)
        self.assertEqual(process.wait(2 * LIMIT_S), code, process.said())
        return process

    def test_arms_and_seeds_end_in_a_table_and_nothing_is_done_twice(self):
        path = self.matrix()
        self.run_matrix(path)
        table = read_json(self.path("out"), "tune.json")
        self.assertEqual(table["users"], harness.USERS / 2)
        self.assertEqual([arm["name"] for arm in table["arms"]], ["nll_only", "adagrpo"])
        for arm in table["arms"]:
            self.assertEqual([run["seed"] for run in arm["runs"]], [1, 2])
            for which in ("best", "final"):
                # The summary against the evaluations themselves.
                values = [read_json(self.path("out"), run["evaluations"][which], "run", "results.json")
                          ["numbers"]["metrics"] for run in arm["runs"]]
                for metric in ("hr@10", "coverage"):
                    self.assertAlmostEqual(arm["summary"][which][metric]["mean"],
                                           sum(one[metric] for one in values) / 2)
            self.assertTrue(all(run["wall_s"] > 0 and run["cpu_s"] > 0 for run in arm["runs"]))
        # coverage is a number of the whole list and has no interval; of 20 beams there is no hr@50.
        final = table["comparisons"]["final"]
        self.assertEqual({one["metric"] for one in final["differences"]}, {"hr@1", "hr@10"})
        self.assertEqual({(one["arm"], one["against"]) for one in final["differences"]},
                         {("nll_only", "start"), ("adagrpo", "start"), ("adagrpo", "nll_only")})
        values = {(arm["name"], metric): entry["mean"] for arm in final["arms"] for metric, entry in arm["metrics"].items()}
        for one in final["differences"]:
            self.assertAlmostEqual(one["mean"], values[one["arm"], one["metric"]] - values[one["against"], one["metric"]])
            self.assertLessEqual(one["low"], one["mean"])
            self.assertGreaterEqual(one["high"], one["mean"])
        with open(self.path("out", "tune.md"), encoding="utf-8") as file:
            text = file.read()
        self.assertIn("| adagrpo | final | 2 |", text)
        self.assertRegex(text, r"\| start \|[^|]*\|[^|]*\| 0 \| 0\.\d+ \| 0\.\d+ \| - \| 0\.\d+ \|")
        with open(self.path("out", "tune.html"), encoding="utf-8") as file:
            page = file.read()
        self.assertIn("</svg>", page)
        self.assertNotIn("http://", page)

        # Again: nothing runs. With another evaluation: nothing trains, and the other users are read.
        stages = self.stages()
        again = self.run_matrix(path, name="again")
        self.assertIn("4 of 4 runs are done", again.said())
        self.assertEqual(self.stages(), stages)
        self.run_matrix(path, "--evaluation", "test", name="test")
        test = read_json(self.path("out"), "test.json")
        self.assertEqual((test["user_parity"], test["split"]), ("odd", "test"))
        for folder, written in stages.items():
            self.assertEqual(self.stages()[folder], written, f"{folder} was made again")

        # The same start and data given by hand: one arm of one seed comes out as it did before.
        given = self.matrix(seeds=[1], arms=[{"name": "adagrpo", "set": {"rl.lambda": 2}}], against=["start"],
                            prepare={"spec": "nowhere.yaml"}, start={"spec": "sft.yaml"})
        self.run_matrix(given, "--out", self.path("given"), code=USAGE, name="wrong")  # the file must be right anyway
        given = self.matrix(seeds=[1], arms=[{"name": "adagrpo", "set": {"rl.lambda": 2}}], against=["start"])
        self.run_matrix(given, "--out", self.path("given"), "--data", self.path("out", "data"), "--model",
                        self.path("out", "start", "run"), name="given")
        self.assertFalse(os.path.exists(self.path("given", "data")))
        self.assertEqual(read_json(self.path("given"), "tune.json")["start"]["metrics"], table["start"]["metrics"])

        # Compare refuses to pair the two.
        runs = [self.path("out", f"start-{which}", "run") for which in ("tune", "test")]
        refused = self.call("compare", "sluice-learner", "compare", *runs)
        self.assertEqual(refused.code(), USAGE, refused.said())
        self.assertIn("were not evaluated alike", refused.said())

        # An arm of another spec does not mix with what is there.
        changed = self.matrix(arms=[{"name": "nll_only", "set": ["rl.objective=nll_only", "rl.steps=2"]}],
                              against=["start"])
        refused = self.run_matrix(changed, code=INTEGRITY, name="changed")
        self.assertIn("was made from another spec", refused.said())

    def stages(self):
        """{folder: when its stage ended} of everything that ran."""
        found = {}
        for folder, _, names in os.walk(self.path("out")):
            if "stage.json" in names:
                found[folder] = os.stat(os.path.join(folder, "stage.json")).st_mtime_ns
        return found

    def test_a_killed_matrix_goes_on_from_the_checkpoint_of_the_arm_that_it_was_at(self):
        path = self.matrix(seeds=[1], arms=[{"name": "long", "set": ["rl.steps=150", "checkpoint.every=1"]}],
                           against=["start"])
        killed = self.start_matrix(path)
        run_folder = self.path("out", "arms", "long", "seed-1", "run")
        wait_until(lambda: harness.checkpoints(run_folder), "a checkpoint", alive=[killed])
        self.assertEqual(killed.ended(), False)
        os.kill(killed.child.pid, signal.SIGKILL)
        killed.wait()
        self.assertFalse(os.path.exists(os.path.join(run_folder, "results.json")))

        again = self.run_matrix(path, name="again")
        with open(self.path("out", "arms", "long", "seed-1", "log.txt"), encoding="utf-8") as file:
            self.assertRegex(file.read(), r"resumed from the checkpoint of step \d+")
        self.assertIn("Table:", again.said())
        self.assertEqual(read_json(run_folder, "results.json")["numbers"]["final"]["step"], 150)

    def test_an_arm_that_fails_is_named_and_the_others_go_on(self):
        # A head that no ranker has leaves every group without a score: the job fails at its first step.
        path = self.matrix(seeds=[1], arms=[
            {"name": "no_reward", "set": ["rl.reward.head=absent", "rl.on_reward_outage=fail", "rl.operational_steps=1"]},
            {"name": "nll_only", "set": ["rl.objective=nll_only"]}], against=["start"])
        failed = self.run_matrix(path, code=FAILED)
        self.assertIn("no_reward, seed 1: FAILED", failed.said())
        table = read_json(self.path("out"), "tune.json")
        self.assertEqual(list(table["failures"]), ["no_reward, seed 1"])
        self.assertIn("exit code", table["failures"]["no_reward, seed 1"])
        self.assertEqual([len(arm["runs"]) for arm in table["arms"]], [0, 1])
        with open(self.path("out", "tune.md"), encoding="utf-8") as file:
            self.assertIn("0 of 1", file.read())

    def test_rows_run_every_arm_but_those_that_run_once(self):
        path = self.matrix(seeds=[1], metrics=["hr@10"], against=["nll_only", "random"], cells={}, rows=[
            {"name": "weak", "set": ["rl.lambda=1"], "error": "pop", "share": 0.5, "arms": {"random": ["rl.steps=2"]}},
            {"name": "strong", "set": ["rl.lambda=2"]}],
            arms=[{"name": "nll_only", "once": True, "set": ["rl.objective=nll_only"]},
                  {"name": "random", "set": ["rl.gate.control=random"]}, {"name": "gate", "gate": "adagrpo", "lambda": 3}])
        self.run_matrix(path, "--only", "nll_only,weak,strong.gate")
        table = read_json(self.path("out"), "tune.json")
        self.assertEqual([(arm["name"], len(arm["runs"])) for arm in table["arms"]],
                         [("nll_only", 1), ("weak.random", 1), ("weak.gate", 1), ("strong.random", 0), ("strong.gate", 1)])
        ran = {name: read_json(self.path("out", "arms", name, "seed-1", "run"), "results.json")["numbers"]["final"]["step"]
               for name in ("nll_only", "weak.random", "weak.gate")}
        self.assertEqual(ran, {"nll_only": 4, "weak.random": 2, "weak.gate": 4})
        # Arms are compared within their row.
        compared = {key: {(one["arm"], one["against"]) for one in comparison["differences"]}
                    for key, comparison in table["comparisons"].items()}
        self.assertEqual(compared["final, strong"], {("start", "nll_only"), ("gate", "nll_only")})
        self.assertIn(("gate", "random"), compared["final, weak"])
        # Every held-out event is in a cell, and the cells of the evaluated users add up.
        self.assertGreaterEqual(table["cells"]["all"]["groups"], harness.USERS)
        cells = table["cell_comparisons"]
        self.assertEqual(sum(one["users"] for name, one in cells.items() if "random" not in name), table["users"])
        # The row whose error is known enters the table that advise reads.
        with open(self.path("out", "tune.gains.csv"), encoding="utf-8") as file:
            self.assertRegex(file.read(), r"^error,share,gate,lambda,gain,low,high\npop,0.5,adagrpo,3,[-0-9.,]+\n$")

    def test_replicates_draw_everything_anew_and_are_pooled(self):
        said = self.run_matrix(self.matrix(), "--replicates", "1,2", "--only", "nll_only").said()
        self.assertIn("tiny: tune, 2 replicates", said)
        pooled = read_json(self.path("out", "tune.replicates.json"))
        self.assertEqual([arm["name"] for arm in pooled["arms"]], ["nll_only"])
        self.assertEqual({one["against"] for one in pooled["differences"]}, {"start"})
        for number in (1, 2):
            # Each has the table that a matrix of that seed alone has.
            own = read_json(self.path("out", f"replicate-{number}", "tune.json"))
            self.assertEqual(own["seeds"], [number])
            hits = [one["values"] for one in pooled["values"] if (one["arm"], one["metric"]) == ("start", "hr@10")]
            self.assertEqual(hits[0][number - 1], own["start"]["metrics"]["hr@10"])
            with open(self.path("out", f"replicate-{number}", "start", "run", "spec.yaml"), encoding="utf-8") as file:
                self.assertIn(f"seed: {number}\n", file.read())
        for flags, why in ((["--replicates", "1"], "want 2 to 10 different whole numbers"),
                           (["--replicates", "1,1"], "want 2 to 10 different whole numbers"),
                           (["--replicates", "1,2", "--data", self.path("out")], "remove --data and --model")):
            self.assertIn(why, self.run_matrix(self.matrix(), *flags, code=USAGE).said())

    def test_mistakes_in_the_file_are_refused_before_anything_runs(self):
        for changes, why in (
                ({"arms": []}, "at least one arm"),
                ({"arms": [{"name": "a", "set": ["rl.stepz=3"]}]}, "rl.stepz"),
                ({"arms": [{"name": "a"}, {"name": "a"}]}, "the name a is taken"),
                ({"arms": [{"name": "a", "sett": []}]}, "arms.a.sett: there is no such key"),
                ({"arms": [{"name": "a", "spec": "nowhere.yaml"}]}, "no spec 'nowhere.yaml'"),
                ({"arms": [{"name": "../a"}]}, "want a name"),
                ({"seeds": [1, 1]}, "different whole numbers"),
                ({"against": ["best"]}, "there is no arm 'best'"),
                ({"rows": [{"name": "r", "error": "pop"}]}, "error and share go together"),
                ({"rows": [{"name": "r", "arms": {"absent": []}}]}, "no arm 'absent'"),
                ({"rows": [{"name": "r"}, {"name": "r"}]}, "the name r is taken"),
                ({"arms": [{"name": "a", "gate": "history"}]}, "gate and lambda go together"),
                ({"start": {}}, "one of model"),
                ({"data": "somewhere"}, "one of data"),
                ({"evaluations": {}}, "evaluations: want"),
                ({"evaluations": {"stage": {"spec": "evaluate.yaml"}}}, "the names stage and cells are taken")):
            refused = self.run_matrix(self.matrix(**{"against": ["start"], **changes}), code=USAGE)
            self.assertIn(why, refused.said())
        self.assertFalse(os.path.exists(self.path("out")))

    def test_the_examples_name_only_keys_that_exist(self):
        folder = os.path.join(harness.TOP, "examples", "matrix")
        for name in sorted(os.listdir(folder)):
            answer = subprocess.run([sys.executable, "-B", MATRIX, os.path.join(folder, name), "--dry-run"],
                                    capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
            self.assertEqual(answer.returncode, DONE, answer.stderr)
            self.assertIn("adagrpo", answer.stdout)


if __name__ == "__main__":
    harness.main()
