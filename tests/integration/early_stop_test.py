"""A SIGTERM that comes before main, to each kind of process, also as process 1 of a namespace, where the kernel drops a
signal that nobody waits for. Each of them ends with its exit code as if it came later."""

import os
import shutil
import subprocess

import harness
from harness import DONE, PREEMPTED

HERE = os.path.dirname(os.path.abspath(__file__))


class EarlyStopTest(harness.SluiceTest):
    def setUp(self):
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            self.skipTest("there is no C compiler")
        self.library = self.path("asks_to_stop.so")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", self.library, os.path.join(HERE, "asks_to_stop.c")], check=True)

    def commands(self):
        """(program, arguments, exit code); none of them finds what it needs, and none gets as far as looking."""
        nobody = harness.free_address()
        spec = self.spec("job", {"name": "job", "kind": "sft", "data": self.path("nowhere"), "model": harness.model_spec()})
        return [("sluice-learner", ["coordinator", "--address", "127.0.0.1:0", "--state", self.path("state")], DONE),
                ("sluice-learner", ["rank", "--coordinator", nobody, "--address", "127.0.0.1:0"], DONE),
                ("sluice-learner", ["run", spec, "--runs", self.path("runs")], PREEMPTED),
                ("sluice-actor", ["--coordinator", nobody], DONE),
                ("sluice-reward", ["--data", self.path("nowhere"), "--address", "127.0.0.1:0"], DONE)]

    def check_all(self, *prefix):
        for program, arguments, code in self.commands():
            with self.subTest(program=program, command=arguments[0]):
                # `env` sets it for the program alone, not for what leads to it.
                argv = [*prefix, "env", f"LD_PRELOAD={self.library}", os.path.join(harness.BIN, program), *arguments]
                process = self.call(program, shutil.which(argv[0]), *argv[1:])
                self.assertEqual(process.code(), code, process.said())
                self.assertIn("stopped while starting", process.said())

    def test_each_process_ends_at_once(self):
        self.check_all()

    def test_so_does_process_1_of_a_namespace(self):
        unshare = ["unshare", "--pid", "--fork", "--kill-child"]
        if os.geteuid() != 0:
            unshare += ["--user", "--map-root-user"]
        try:
            said = subprocess.run([*unshare, "true"], capture_output=True, text=True, timeout=harness.LIMIT_S)
        except FileNotFoundError:
            self.skipTest("there is no program `unshare`")
        if said.returncode != 0:
            self.skipTest(f"a namespace of processes cannot be made here: {said.stderr.strip()}")
        self.check_all(*unshare)


if __name__ == "__main__":
    harness.main()
