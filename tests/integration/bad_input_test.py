"""What a user sees of mistakes and damage: a sentence with place and remedy, the right exit code, nothing half-written."""

import json
import os
import shutil
import socket

import harness
from harness import DONE, INTEGRITY, PERMISSION, TRANSIENT, USAGE


class BadInputTest(harness.SluiceTest):
    def refused(self, values, code, *sentences, name=None):
        """Runs a job that must end with `code` and say all of `sentences`; returns what it said."""
        process, folder = self.start_job(values, "--address", "127.0.0.1:0", name=name)
        self.assertEqual(process.wait(), code, process.said())
        for sentence in sentences:
            self.assertIn(sentence, process.said())
        self.assertNotIn("terminate called", process.said())
        self.assertFalse(os.path.exists(os.path.join(folder, "results.json")))
        return process.said()

    def test_every_mistake_in_a_spec_is_named_at_once_with_its_line_and_the_key_that_was_meant(self):
        values = harness.rl_spec("nowhere")
        values["rl"]["grups_per_step"] = values["rl"].pop("groups_per_step")
        values["rl"]["gate"]["tau"] = 7
        values["rl"]["sampler"] = "beems"
        values["seed"] = "five"
        said = self.refused(values, USAGE, "grups_per_step", "groups_per_step", "rl.gate.tau", "beems", "beam", "seed")
        lines = [line for line in said.splitlines() if "tiny-rl.yaml:" in line]
        self.assertEqual(len(lines), 4, said)
        for line in lines:
            self.assertRegex(line, r"tiny-rl\.yaml:\d+:\d+: ")
        self.assertFalse(os.path.exists(self.path("tiny-rl")), "no run folder for a spec that was refused")

    def test_a_spec_that_is_not_there_or_not_yaml_is_refused(self):
        missing = self.call("learner", "sluice-learner", "run", self.path("no.yaml"), "--run-folder", self.path("x"))
        self.assertEqual(missing.code(), INTEGRITY, missing.said())
        self.assertIn("no.yaml", missing.said())
        with open(self.path("bad.yaml"), "w", encoding="utf-8") as file:
            file.write("kind: rl\n  name: [unclosed\n")
        bad = self.call("learner", "sluice-learner", "run", self.path("bad.yaml"), "--run-folder", self.path("x"))
        self.assertEqual(bad.code(), USAGE, bad.said())
        self.assertRegex(bad.said(), r"bad\.yaml:[23]")

    def test_unknown_flags_and_commands_are_usage_errors_of_every_binary(self):
        for binary in ("sluice-learner", "sluice-actor", "sluice-reward", "sluice-inspect"):
            process = self.call("binary", binary, "--no-such-flag")
            self.assertEqual(process.code(), USAGE, f"{binary}: {process.said()}")
            self.assertEqual(self.call("binary", binary, "--help").code(), DONE)
        lonely = self.call("actor", "sluice-actor")
        self.assertEqual(lonely.code(), USAGE)
        self.assertIn("--coordinator", lonely.said())

    def test_a_device_that_is_not_there_is_refused_by_every_binary_that_computes(self):
        with open(self.path("spec.yaml"), "w", encoding="utf-8") as file:
            file.write("kind: sft\nname: x\ndata: nowhere\n")
        for binary, *arguments in (
                ("sluice-learner", "run", self.path("spec.yaml"), "--run-folder", self.path("x")),
                ("sluice-learner", "rank", "--coordinator", "127.0.0.1:1", "--address", "127.0.0.1:0"),
                ("sluice-actor", "--learner", "127.0.0.1:1"),
                ("sluice-inspect", "score", "--model", "x", "--items", "x", "--input", "-")):
            named = self.call("named", binary, *arguments, "--device", "gpu")
            self.assertEqual(named.code(), USAGE, named.said())
            self.assertIn("there is no device 'gpu'; want cpu, or cuda:N", named.said())
            rounded = self.call("rounded", binary, *arguments, "--precision", "fp16")
            self.assertEqual(rounded.code(), USAGE, rounded.said())
            self.assertIn("want fp32 or bf16", rounded.said())
            # Beyond any machine's: without a driver, without wheels or with fewer GPUs.
            absent = self.call("absent", binary, *arguments, "--device", "cuda:99")
            self.assertEqual(absent.code(), PERMISSION, absent.said())
            self.assertIn("device cuda:99: ", absent.said())
        self.assertFalse(os.path.exists(self.path("x")))

    def test_a_collective_that_is_unknown_or_wants_a_gpu_is_refused(self):
        rank = ("sluice-learner", "rank", "--coordinator", "127.0.0.1:1", "--address", "127.0.0.1:0")
        for collective, said in (("mpi", "there is no collective 'mpi'; want --collective gloo, nccl or auto"),
                                 ("nccl", "add --device cuda:N, or use --collective gloo")):
            process = self.call("rank", *rank, "--collective", collective)
            self.assertEqual(process.code(), USAGE, process.said())
            self.assertIn(said, process.said())

    def test_a_way_for_weights_that_is_unknown_or_wants_a_gpu_is_refused(self):
        processes = (("sluice-learner", "rank", "--coordinator", "127.0.0.1:1", "--address", "127.0.0.1:0"),
                     ("sluice-actor", "--learner", "127.0.0.1:1"))
        for arguments in processes:
            for weights, said in (("mpi", "there is no way for weights called 'mpi'"),
                                  ("nccl", "--weights nccl broadcasts between GPUs, and this process computes on cpu")):
                process = self.call(arguments[0], *arguments, "--weights", weights)
                self.assertEqual(process.code(), USAGE, process.said())
                self.assertIn(said, process.said())

    def test_events_that_are_missing_or_malformed_are_refused_and_leave_no_data_set(self):
        output = self.path("data")
        self.refused(harness.prepare_spec(self.path("none.csv"), output), INTEGRITY, "none.csv", name="missing")
        cases = {
            "empty": ("", "events.csv"),
            "no-column": ("person,item,timestamp\na,b,1\n", "user"),
            "short-row": ("user,item,timestamp\na,b,1\na,b\n", ":3"),
            "not-a-time": ("user,item,timestamp\na,b,soon\n", ":2"),
        }
        for name, (text, sentence) in cases.items():
            with open(self.path("events.csv"), "w", encoding="utf-8") as file:
                file.write(text)
            process, _ = self.start_job(harness.prepare_spec(self.path("events.csv"), output), name=name)
            self.assertIn(process.wait(), (USAGE, INTEGRITY), f"{name}: {process.said()}")
            self.assertIn(sentence, process.said(), name)
        self.assertEqual([n for n in os.listdir(self.folder) if n.startswith("data")], [])

    def test_missing_and_damaged_data_sets_are_refused_by_whoever_reads_them(self):
        self.refused(harness.rl_spec(self.path("nowhere")), INTEGRITY, "nowhere", name="missing")
        data = self.prepare()
        manifest = [name for name in os.listdir(data) if name.endswith(".json") and "manifest" in name]
        self.assertEqual(len(manifest), 1)
        files = sorted(name for name in os.listdir(data) if os.path.isfile(os.path.join(data, name))
                       and name not in manifest and name in json.dumps(harness.read_json(data, manifest[0])))
        self.assertGreater(len(files), 2)
        for name in files:
            path = os.path.join(data, name)
            with open(path, "rb") as file:
                whole = file.read()
            with open(path, "wb") as file:
                file.write(whole[:-1])
            self.refused(harness.rl_spec(data), INTEGRITY, name, name="truncated")
            with open(path, "wb") as file:  # same size, one bit flipped
                file.write(whole[:-1] + bytes([whole[-1] ^ 1]))
            self.refused(harness.rl_spec(data), INTEGRITY, name, name="flipped")
            with open(path, "wb") as file:
                file.write(whole)
        os.rename(os.path.join(data, files[0]), self.path("away"))
        self.refused(harness.rl_spec(data), INTEGRITY, files[0], name="absent")
        reward = self.call("reward", "sluice-reward", "--data", data, "--address", "127.0.0.1:0")
        self.assertEqual(reward.code(), INTEGRITY, reward.said())
        self.assertIn(files[0], reward.said())

    def test_a_model_that_is_missing_or_damaged_is_refused(self):
        data = self.prepare(ranker={"sequential": False})
        evaluate = {"name": "evaluate", "kind": "evaluate", "data": data, "model": {"path": self.path("no-model")}}
        self.refused(evaluate, INTEGRITY, "no-model")
        _, sft = self.run_job({"name": "sft", "kind": "sft", "data": data, "model": harness.model_spec(),
                               "sft": {"passes": 1, "validation": {"beams": 10}}})
        weights = os.path.join(sft, "export", "best", "model.safetensors")
        evaluate["model"]["path"] = sft
        with open(weights, "rb") as file:
            whole = file.read()
        for name, damaged in (("truncated", whole[:-4]), ("empty", b""), ("magic", b"\xff" * 16 + whole[16:])):
            with open(weights, "wb") as file:
                file.write(damaged)
            self.refused(evaluate, INTEGRITY, "model.safetensors", name=name)

    def test_a_port_in_use_is_a_plain_error_of_every_server(self):
        data = self.prepare(ranker={"sequential": False})
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            spec = self.spec("rl", harness.rl_spec(data))
            for arguments in (
                    ("sluice-reward", "--data", data, "--address", taken),
                    ("sluice-reward", "--data", data, "--address", "127.0.0.1:0", "--metrics-address", taken),
                    ("sluice-actor", "--learner", "127.0.0.1:1", "--address", taken),
                    ("sluice-actor", "--learner", "127.0.0.1:1", "--metrics-address", taken),
                    ("sluice-learner", "run", spec, "--run-folder", self.path("run"), "--address", taken),
                    ("sluice-learner", "run", spec, "--run-folder", self.path("run"), "--metrics-address", taken),
                    ("sluice-learner", "rank", "--coordinator", "127.0.0.1:1", "--address", taken),
                    ("sluice-learner", "rank", "--coordinator", "127.0.0.1:1", "--address", "127.0.0.1:0",
                     "--metrics-address", taken),
                    ("sluice-learner", "coordinator", "--address", taken, "--runs", self.path("runs")),
                    ("sluice-learner", "coordinator", "--address", "127.0.0.1:0", "--metrics-address", taken, "--runs",
                     self.path("runs"))):
                with self.subTest(arguments[:2], address=arguments[-2:]):
                    process = self.call("server", *arguments)
                    self.assertEqual(process.code(), TRANSIENT, process.said())
                    self.assertIn(taken, process.said())
                    self.assertIn("in use", process.said())

    def test_a_full_disk_ends_the_job_with_its_code_and_leaves_the_last_checkpoint_whole(self):
        data = self.prepare(ranker={"sequential": False})
        spec = {"name": "sft", "kind": "sft", "data": data, "model": harness.model_spec(),
                "sft": {"passes": 4, "targets_per_step": 100, "validation": {"every": 0, "beams": 10}},
                "checkpoint": {"every": 4, "keep": 10}}
        _, whole = self.run_job(spec, name="whole")
        newest = os.path.join(whole, "checkpoints", harness.checkpoints(whole)[-1])
        limit = os.path.getsize(os.path.join(newest, "optimizer.safetensors")) // 2
        full, folder = self.start_job(spec, name="full", max_file_bytes=limit)
        self.assertEqual(full.wait(), harness.NO_SPACE, full.said())
        self.assertIn("step-00000004", full.said())
        self.assertEqual(os.listdir(os.path.join(folder, "checkpoints")), [])

        # The job that had a checkpoint keeps it.
        shutil.rmtree(newest)
        shutil.rmtree(os.path.join(whole, "export"))
        left = harness.checkpoints(whole)
        full, _ = self.start_job(spec, folder=whole, name="full-again", max_file_bytes=limit)
        self.assertEqual(full.wait(), harness.NO_SPACE, full.said())
        self.assertEqual(harness.checkpoints(whole), left)
        # With room again the same command goes on from it.
        resumed, _ = self.run_job(spec, folder=whole, name="resumed")
        self.assertIn("resumed from the checkpoint of step 12", resumed.said())
        self.assertEqual(harness.checkpoints(whole), left + [os.path.basename(newest)])

    def test_a_checkpoint_of_another_spec_is_not_resumed_and_a_damaged_one_gives_way_to_the_one_before(self):
        data = self.prepare(ranker={"sequential": False})
        spec = {"name": "sft", "kind": "sft", "data": data, "model": harness.model_spec(),
                "sft": {"passes": 2, "targets_per_step": 100, "validation": {"beams": 10}}, "checkpoint": {"every": 2}}
        _, folder = self.run_job(spec)
        spec["seed"] = 9
        other, _ = self.start_job(spec, folder=folder, name="other")
        self.assertEqual(other.wait(), harness.PERMISSION, other.said())
        self.assertIn("seed", other.said())
        with open(os.path.join(folder, "spec.yaml"), encoding="utf-8") as file:
            self.assertNotIn("seed: 9", file.read(), "a spec that is refused leaves the run folder as it was")
        del spec["seed"]
        before = harness.checkpoints(folder)
        self.assertEqual(len(before), 2)

        def shorten(name):
            optimizer = os.path.join(folder, "checkpoints", name, "optimizer.safetensors")
            with open(optimizer, "r+b") as file:
                file.truncate(os.path.getsize(optimizer) - 1)

        shorten(before[-1])
        resumed, _ = self.run_job(spec, folder=folder, name="resumed")
        self.assertIn("is damaged and now lies in", resumed.said())
        self.assertIn(f"resumed from the checkpoint of step {int(before[0][5:])}", resumed.said())
        self.assertEqual(harness.checkpoints(folder), before)
        self.assertTrue(os.path.isdir(os.path.join(folder, "checkpoints", "damaged-" + before[-1])))

        lines = len(harness.read_metrics(folder))
        for name in before:
            shorten(name)
        damaged, _ = self.start_job(spec, folder=folder, name="damaged")
        self.assertEqual(damaged.wait(), INTEGRITY, damaged.said())
        self.assertIn("optimizer.safetensors", damaged.said())
        self.assertEqual(len(harness.read_metrics(folder)), lines, "what cannot be resumed is left as it is")


if __name__ == "__main__":
    harness.main()
