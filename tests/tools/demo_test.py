"""The parts of tools/demo.py that need no build: specs with replaced values, and processes that never stay behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools")
sys.path.insert(0, TOOLS)
import demo


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class WithValuesTest(unittest.TestCase):
    TEXT = "kind: rl  # a job\ndata: x\nmodel:\n  path: old\nrl:\n  gate:\n    path: other\n  steps: 3\n"

    def test_replaces_keys_at_their_own_place_alone(self):
        text = demo.with_values(self.TEXT, {"model.path": "a b", "rl.steps": 7})
        self.assertEqual(text, "kind: rl  # a job\ndata: x\nmodel:\n  path: \"a b\"\nrl:\n  gate:\n    path: other\n"
                               "  steps: 7\n")

    def test_a_key_that_is_not_there_is_an_error(self):
        with self.assertRaisesRegex(demo.Failure, "has no key rl.path"):
            demo.with_values(self.TEXT, {"rl.path": "x"})

    def test_the_examples_have_every_key_that_the_demo_replaces(self):
        examples = os.path.join(demo.TOP, "examples")
        for name in ("ml-100k", "beauty"):
            for kind, keys in (("prepare", ["prepare.events", "prepare.output"]), ("sft", ["data"]),
                               ("rl", ["data", "model.path"]), ("evaluate", ["data", "model.path"])):
                with open(os.path.join(examples, name, f"{kind}.yaml"), encoding="utf-8") as file:
                    text = file.read()
                demo.with_values(text, dict.fromkeys(keys, "x"))
                self.assertGreater(demo.time_limit(text), 0)


class ProcessTest(unittest.TestCase):
    def test_stop_ends_a_process_that_ignores_the_polite_request(self):
        demo.STOP_SECONDS = 0.2
        process = demo.start(["bash", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"],
                             stdout=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        demo.stop(process)
        self.assertEqual(process.returncode, -signal.SIGKILL)
        process.stdout.close()

    def test_a_child_ends_with_its_parent_even_when_that_is_killed(self):
        script = (f"import sys; sys.path.insert(0, {TOOLS!r}); import demo, time\n"
                  "print(demo.start(['sleep', '600']).pid, flush=True); time.sleep(600)")
        parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        child = int(parent.stdout.readline())
        parent.stdout.close()
        self.assertTrue(alive(child))
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 30
        while alive(child) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(alive(child))

    def test_a_process_that_dies_is_reported_with_its_log(self):
        with tempfile.TemporaryDirectory() as place:
            cluster = demo.Cluster(place, place, ranks=1, actors=1)
            os.makedirs(os.path.join(place, "logs"))
            cluster.launch("actor-0", None, ["bash", "-c", "echo no data set here; exit 3"])
            cluster.processes[0][1].wait()
            with self.assertRaisesRegex(demo.Failure, "actor-0 ended with exit code 3(.|\n)*no data set here") as caught:
                cluster.check()
            self.assertEqual(caught.exception.code, 3)
            cluster.stop_all()


if __name__ == "__main__":
    unittest.main()
