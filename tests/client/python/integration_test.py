"""The Python package against a coordinator, a rank, a reward server and an actor as processes of their own."""
import json
import os
import subprocess
import sys
from unittest import mock

import support

support.require("grpc", "numpy")
sys.path.insert(0, os.path.join(support.TOP, "tests", "integration"))
import harness  # noqa: E402
import sluice  # noqa: E402
from mlflow_servers import FakeMlflow  # noqa: E402
from sluice.mirror.mlflow import metric_name  # noqa: E402

if not os.path.exists(os.path.join(harness.BIN, "sluice-learner")):
    support.skip(f"there is no sluice-learner in {harness.BIN}")


class PythonClientTest(harness.SluiceTest):
    def start_cluster(self, data):
        cluster = harness.Cluster(self, data, ranks=1)
        cluster.coordinator = cluster.start_coordinator()
        self.client = sluice.Client(cluster.address, timeout=60, watch_patience=harness.LIMIT_S)
        self.addCleanup(self.client.close)
        return cluster

    def test_a_job_submitted_from_a_dict_is_followed_over_a_restart_to_its_results(self):
        cluster = self.start_cluster(self.prepare(ranker={"sequential": False}))
        spec = harness.rl_spec(cluster.data, steps=100)
        job = self.client.submit(spec, overrides={"rl.steps": 6}, request_id="once")
        again = self.client.submit(spec, overrides={"rl.steps": 6}, request_id="once")
        self.assertEqual((job.existed, again.existed, again.id), (False, True, job.id))
        self.assertEqual([summary.state for summary in self.client.list()], [sluice.JobState.QUEUED])
        cluster.start_reward()
        cluster.start_rank()
        actor = cluster.start_actor()

        seen = []
        for point in job.watch_metrics():
            seen.append(point)
            if "loss/nll" in point.values and point.step >= 2:
                break
        actor.pause()  # the job stops in the middle
        contacts = []
        cluster.coordinator.kill()

        def on_contact(lost):
            contacts.append(lost)
            if lost is not None:
                cluster.coordinator = cluster.start_coordinator()
                actor.resume()

        rest = list(job.watch(after=seen[-1].sequence, on_contact=on_contact))
        self.assertIsInstance(contacts[0], sluice.ServerDownError)
        self.assertIsNone(contacts[1])
        self.assertEqual([event.sequence for event in rest],
                         list(range(seen[-1].sequence + 1, seen[-1].sequence + 1 + len(rest))))
        self.assertEqual(rest[-1].state, sluice.JobState.SUCCEEDED)
        outcome = job.wait(timeout=harness.LIMIT_S)
        self.assertEqual((outcome.ok, outcome.exit_code), (True, harness.DONE))

        with self.assertRaises(sluice.JobStateError):
            job.cancel()
        described = job.describe()
        ledger = described.ledger
        self.assertEqual(ledger.issued,
                         ledger.trained + ledger.dropped + ledger.failed + ledger.cancelled + ledger.open)
        self.assertEqual(described.summary.total_steps, 6)
        # What was told live, what the coordinator keeps and what the run folder holds are the same numbers.
        live = {
            point.step: point.values["loss/nll"]
            for point in [*seen, *[e for e in rest if isinstance(e, sluice.MetricsEvent)]]
            if "loss/nll" in point.values
        }
        self.assertEqual(sorted(live), [1, 2, 3, 4, 5, 6])
        self.assertEqual(dict(job.metrics().series("loss/nll")), live)
        run = job.run_folder()
        written = dict(run.metrics().series("loss/nll"))
        self.assertEqual(written.keys(), live.keys())
        for step, value in live.items():
            self.assertAlmostEqual(written[step], value, places=6)
        self.assertIn("final", run.results()["numbers"])
        self.assertTrue((run.export("best") / "model.safetensors").is_file())
        self.assertTrue(run.report().is_file())
        self.assertIn("steps: 6", run.spec_yaml)

    def test_what_goes_wrong_is_typed_and_says_what_to_do(self):
        cluster = self.start_cluster(self.prepare(ranker={"sequential": False}))
        path = self.path("bad.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("kind: rl\nrl:\n  stepz: 5\n  group_size: 0\n")
        with self.assertRaises(sluice.BadSpecError) as raised:
            self.client.submit(path)
        told = raised.exception.mistakes
        self.assertEqual([(m.line, m.column) for m in told if "stepz" in m.text], [(3, 3)], told)
        self.assertIn("steps", next(m.text for m in told if "stepz" in m.text))  # the suggestion
        self.assertTrue(any(m.line == 4 and "want 2 to 1024, got 0" in m.message for m in told), told)
        self.assertTrue(any("data" in m.text for m in told), told)
        # As sluicectl says it, to the letter.
        validate = self.call("validate", "sluicectl", "validate", path)
        self.assertEqual(validate.code(), harness.USAGE)
        self.assertEqual(validate.said().splitlines(), [m.text for m in told])
        # A place in a dict is one in the text that was made of it.
        bad = self.client.validate({"kind": "sft", "data": "d", "sft": {"passes": 0}})
        self.assertEqual(bad.mistakes[0].line, 4)
        self.assertIn("passes: 0", bad.text.splitlines()[3])
        good = self.client.validate({"kind": "sft", "data": "d"})
        self.assertTrue(good.ok and "passes: 24" in good.effective_yaml and good.spec_digest)
        self.assertEqual(self.client.list(), [])  # nothing of all this was submitted

        for call in (lambda: self.client.describe("nothing"), lambda: sluice.Job(self.client, "nothing").describe(),
                     lambda: sluice.Job(self.client, "nothing").cancel(),
                     lambda: list(sluice.Job(self.client, "nothing").watch())):
            with self.assertRaises(sluice.UnknownJobError):
                call()

        # A job that waits for ranks which never come: not ended in time, then cancelled.
        job = self.client.submit(harness.rl_spec(cluster.data))
        with self.assertRaises(sluice.DeadlineError):
            job.wait(timeout=0.2)
        job.cancel()
        with self.assertRaises(sluice.JobCancelledError) as raised:
            job.wait(timeout=harness.LIMIT_S)
        self.assertEqual(raised.exception.exit_code, harness.CANCELLED)
        job.cancel()  # once more changes nothing

        # The ports beside the right one: metrics, which speak HTTP, and another service of gRPC.
        for address in (cluster.metrics, self.start_reward(cluster.data)[1]):
            with sluice.Client(address) as lost, self.assertRaisesRegex(sluice.WrongServerError, "is no coordinator"):
                lost.list()
        cluster.coordinator.kill()
        with self.assertRaises(sluice.ServerDownError):
            self.client.list()

    def test_a_running_job_is_cancelled_with_a_checkpoint_and_a_failing_one_says_why(self):
        cluster = self.start_cluster(self.prepare(ranker={"sequential": False}))
        cluster.start_reward()
        cluster.start_rank()
        cluster.start_actor()
        job = self.client.submit(harness.rl_spec(cluster.data, steps=100000))
        for point in job.watch_metrics():
            if "loss/nll" in point.values:
                break
        job.cancel()
        outcome = job.wait(timeout=harness.LIMIT_S, check=False)
        self.assertEqual((outcome.state, outcome.exit_code), (sluice.JobState.CANCELLED, harness.CANCELLED))
        self.assertTrue(job.run_folder().checkpoints())

        # It goes on under its id, from where it was.
        reached = job.describe().summary.step
        last = max(event.sequence for event in job.watch(until_now=True))
        self.assertIn("step-", job.resume())
        for event in job.watch(after=last):
            if isinstance(event, sluice.MetricsEvent) and event.step > reached:
                break
        job.cancel()
        self.assertEqual(job.wait(timeout=harness.LIMIT_S, check=False).state, sluice.JobState.CANCELLED)

        failing = self.client.submit({"kind": "sft", "data": self.path("nowhere"), "model": harness.model_spec()})
        with self.assertRaisesRegex(sluice.JobFailedError, "nowhere") as raised:
            failing.wait(timeout=harness.LIMIT_S)
        self.assertEqual(raised.exception.exit_code, harness.INTEGRITY)

    def test_pushed_data_are_trained_on_and_sluicectl_mirrors_the_job(self):
        data = self.prepare(ranker={"sequential": False})
        cluster = harness.Cluster(self, None, ranks=1)
        cluster.coordinator_flags = ["--data-root", self.path("pushed")]
        cluster.start_coordinator()
        # Both programs find the coordinator by the same context.
        environment = {k: v for k, v in os.environ.items() if k not in ("SLUICE_SERVER", "SLUICE_CONTEXT")}
        environment.update(SLUICE_CONFIG=self.path("contexts.yaml"), XDG_STATE_HOME=self.path("state"))

        def ctl(*arguments, **more):
            return subprocess.run([os.path.join(harness.BIN, "sluicectl"), *arguments], capture_output=True, text=True,
                                  env={**environment, **more}, timeout=harness.LIMIT_S, stdin=subprocess.DEVNULL)
        self.assertEqual(ctl("context", "set", "here", "--server", cluster.address).returncode, harness.DONE)
        with mock.patch.dict(os.environ, environment, clear=True):
            client = sluice.connect(timeout=60)
        self.addCleanup(client.close)
        self.assertEqual(client.server, cluster.address)

        pushed = client.push_data(data)
        self.assertFalse(pushed.existed)
        again = client.push_data(data)
        self.assertEqual((again.existed, again.digest), (True, pushed.digest))
        # sluicectl gives the same files the same digest.
        said = json.loads(ctl("data", "push", data, "-o", "json").stdout)
        self.assertEqual((said["digest"], said["existed"], said["bytes"]), (pushed.digest, True, pushed.bytes))
        (listed,) = client.pushed_data()
        self.assertEqual((listed.digest, listed.files, listed.name), (pushed.digest, pushed.files, "data"))
        cluster.start_rank()
        job = client.submit({"name": "tiny", "kind": "sft", "data": pushed.address, "model": harness.model_spec(),
                             "sft": {"passes": 2, "validation": {"beams": 10}}})
        with self.assertRaisesRegex(sluice.DataStateError, "reads"):
            client.remove_data(pushed.digest)

        server = FakeMlflow()
        self.addCleanup(server.stop)
        mirror = ("mirror", job.id[:-2], "--to", "mlflow", "--uri", server.uri, "--follow", "--every", "0.2", "-o", "json")
        python = {"SLUICE_PYTHON": sys.executable, "PYTHONPATH": support.SITE, "PYTHONDONTWRITEBYTECODE": "1"}
        done = ctl(*mirror, **python)
        self.assertEqual((done.returncode, done.stderr), (harness.DONE, ""))
        self.assertEqual(json.loads(done.stdout)["state"], "succeeded")
        written = {(row["step"], metric_name(name), value) for row in job.run_folder().metrics().rows
                   for name, value in row.items() if name not in ("step", "time_s") and isinstance(value, (int, float))}
        self.assertGreater(len(written), 10)
        self.assertEqual(set(server.points()), written)
        (run,) = server.runs.values()
        self.assertEqual((run["status"], run["tags"]["sluice.job_id"], run["params"]["sft.passes"]), ("FINISHED", job.id, "2"))
        self.assertEqual(run["tags"]["sluice.spec_digest"], job.describe().spec_digest)
        # What a parameter says is what the run's spec.yaml says.
        for key in ("kind", "seed", "sft.optimizer.learning_rate", "model.hidden_size"):
            self.assertRegex(job.run_folder().spec_yaml, rf"(?m)^ *{key.rpartition('.')[2]}: {run['params'][key]}$")
        done = ctl(*mirror, **python)
        self.assertEqual((done.returncode, json.loads(done.stdout)["points"]), (harness.DONE, 0))

        for arguments, changes, code, why in (
                (("mirror", "nothing"), {}, harness.USAGE, "there is no job 'nothing'"),
                (("mirror", job.id, "--server", harness.free_address()), {}, harness.TRANSIENT, "no coordinator answers"),
                (("mirror", job.id, "--context", "moon"), {}, harness.USAGE, "there is no context 'moon'"),
                (("mirror", job.id), {"SLUICE_PYTHON": self.path("python")}, harness.USAGE, "cannot be run"),
                (("mirror", job.id), {"PYTHONPATH": ""}, harness.USAGE, "has no package sluice of this release")):
            done = ctl(*arguments, "--to", "mlflow", "--uri", server.uri, **{**python, **changes})
            self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
            self.assertIn(why, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertGreater(client.remove_data(pushed.address), 0)
        self.assertEqual(client.pushed_data(), [])


if __name__ == "__main__":
    harness.main()
