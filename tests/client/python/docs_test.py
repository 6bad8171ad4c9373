"""docs/python.md and examples/python do what they show: every block is run, in order, against real processes."""
import contextlib
import io
import os
import re
import subprocess
import sys

import support

support.require("grpc", "numpy", "pandas")
sys.path.insert(0, os.path.join(support.TOP, "tests", "integration"))
import harness  # noqa: E402
import numpy  # noqa: E402

if not os.path.exists(os.path.join(harness.BIN, "sluice-learner")):
    support.skip(f"there is no sluice-learner in {harness.BIN}")

PAGE = os.path.join(support.TOP, "docs", "python.md")


def blocks():
    """[(line, language, text)] of the page."""
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    return [(text.count("\n", 0, match.start(2)) + 1, match.group(1), match.group(2))
            for match in re.finditer(r"(?ms)^```(\w*)\n(.*?)^```$", text)]


class DocsTest(harness.SluiceTest):
    def start_cluster(self):
        cluster = harness.Cluster(self, None, ranks=1)
        cluster.coordinator_flags = ["--data-root", self.path("pushed")]
        cluster.start_coordinator()
        cluster.start_rank()
        return cluster

    def test_every_python_block_of_the_page_runs(self):
        cluster = self.start_cluster()
        before, server = os.getcwd(), os.environ.get("SLUICE_SERVER")
        os.environ["SLUICE_SERVER"] = cluster.address
        os.chdir(self.folder)
        names, ran, said = {}, 0, io.StringIO()
        try:
            for line, language, text in blocks():
                if language != "python":
                    continue
                with contextlib.redirect_stdout(said):
                    exec(compile("\n" * (line - 1) + text, PAGE, "exec"), names)  # its own lines in a traceback
                ran += 1
        finally:
            os.chdir(before)
            os.environ.pop("SLUICE_SERVER")
            if server is not None:
                os.environ["SLUICE_SERVER"] = server
            if "client" in names:
                names["client"].close()
        self.assertGreaterEqual(ran, 8)
        # What the page says that it prints.
        self.assertIn("3 3 sft.pases: unknown key; did you mean passes?", said.getvalue())
        self.assertIn("there is no job 'no-such-job'", said.getvalue())

    def test_every_block_is_of_a_language_that_is_run(self):
        self.assertEqual({language for _, language, _ in blocks()}, {"python", "sh"})

    def test_the_commands_of_the_page_run(self):
        if not os.path.exists(os.path.join(support.TOP, ".venv", "bin", "pip")):
            self.skipTest("there is no .venv in the tree")
        commands = "".join(text for _, language, text in blocks() if language == "sh")
        # Into a folder of this test, from what is here already.
        environment = dict(os.environ, PIP_NO_INDEX="1", PIP_NO_DEPS="1", PIP_TARGET=self.path("site"))
        done = subprocess.run(["bash", "-euc", commands],
                              cwd=support.TOP,
                              env=environment,
                              capture_output=True,
                              text=True,
                              timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertTrue(os.path.isfile(self.path("site", "sluice", "client.py")))

    def test_the_first_job_of_the_examples_ends_with_its_numbers(self):
        cluster = self.start_cluster()
        events = harness.write_events(self.path("events.csv"))
        program = os.path.join(support.TOP, "examples", "python", "first_job.py")

        def run(rl_steps):
            done = subprocess.run(
                [sys.executable, "-B", program, events, self.path("work"), "--passes", "1", "--rl-steps", str(rl_steps),
                 "--hidden-size", "32", "--min-events", "1"],
                capture_output=True, text=True, timeout=harness.LIMIT_S,
                env=dict(os.environ, SLUICE_SERVER=cluster.address, PYTHONPATH=support.SITE))
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertRegex(done.stdout, rf"HR@10 0?\.\d+, NDCG@10 0?\.\d+ over {harness.USERS} test users")
            return done.stdout

        self.assertNotIn("rl-", run(rl_steps=0))
        # Now that there is a data set, a reward server can serve it. The first three jobs are done again.
        cluster.data = self.path("work", "data")
        cluster.start_reward()
        cluster.start_actor()
        self.assertRegex(run(rl_steps=2), r"rl-\w+: step 2 of 2 .*gate/open_rate")

    def test_the_ranker_of_the_examples_serves(self):
        import grpc
        numpy.save(self.path("counts.npy"), numpy.array([0, 1, 3]))
        program = os.path.join(support.TOP, "examples", "python", "popularity_ranker.py")
        environment = dict(os.environ, PYTHONPATH=support.SITE)
        ranker = subprocess.Popen([sys.executable, "-B", program, self.path("counts.npy"), "--address", "127.0.0.1:0"],
                                  stdout=subprocess.PIPE, text=True, env=environment,
                                  preexec_fn=harness.die_with_parent)
        self.addCleanup(ranker.stdout.close)
        self.addCleanup(ranker.wait)
        self.addCleanup(ranker.kill)
        address = re.match(r"serving at (\S+);", ranker.stdout.readline()).group(1)
        from sluice.inference import open_inference_pb2 as pb
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer",
                                        request_serializer=pb.ModelInferRequest.SerializeToString,
                                        response_deserializer=pb.ModelInferResponse.FromString)
            rows = {"datatype": "INT64", "shape": [2]}
            answer = infer(pb.ModelInferRequest(model_name="ranker", inputs=[
                {"name": "user", "contents": {"int64_contents": [-1, -1]}, **rows},
                {"name": "history", "datatype": "INT64", "shape": [2, 1], "contents": {"int64_contents": [0, 0]}},
                {"name": "item", "contents": {"int64_contents": [2, 0]}, **rows}]), timeout=30)
        self.assertEqual([round(s, 4) for s in answer.outputs[0].contents.fp32_contents], [1.3863, 0])  # log 4, log 1


if __name__ == "__main__":
    harness.main()
