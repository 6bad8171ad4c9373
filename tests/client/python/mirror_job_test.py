"""sluice.mirror of a coordinator's job: its metrics, spec and state to MLflow, TensorBoard and W&B, wherever the cursor went
and whatever becomes of the coordinator meanwhile."""
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

import support

support.require("grpc")
sys.path.insert(0, os.path.join(support.TOP, "tests", "integration"))
import grpc  # noqa: E402
import sluice  # noqa: E402
from mlflow_servers import LIMIT_S, FakeMlflow, ask_mlflow, points_of, start_real_mlflow, wait_until  # noqa: E402
from harness import free_address  # noqa: E402
from sluice.mirror import mirror_run  # noqa: E402
from sluice.mirror.__main__ import main  # noqa: E402
from sluice.v1 import job_pb2, spec_pb2  # noqa: E402

JOB = "rl-7f2c"
START_S = 1_700_000_000


class FakeRun:
    """One job of a coordinator, with its metrics.jsonl, as the calls of the job service show it. Useful for: states and
    files that a real job goes through in its own time."""

    def __init__(self):
        self.summary = job_pb2.JobSummary(job_id=JOB, name="rl", kind=spec_pb2.JOB_KIND_RL,
                                          state=job_pb2.JOB_STATE_RUNNING, message="step 3")
        self.summary.started.FromSeconds(START_S)
        self.spec = spec_pb2.JobSpec(name="rl", kind=spec_pb2.JOB_KIND_RL, seed=7)
        self.spec.rl.gate.tau = 0.3
        self.spec.rl.record = True
        self.metrics = None  # bytes
        self.pieces = []  # offsets that were asked for
        self.metadata = []
        self.damage = False

    def end(self, state, exit_code, message):
        self.summary.state, self.summary.exit_code, self.summary.message = state, exit_code, message
        self.summary.ended.FromSeconds(START_S + 60)

    def write(self, rows):
        self.metrics = (self.metrics or b"") + "".join(json.dumps(row) + "\n" for row in rows).encode()

    def steps(self, first, last, value=0.0):
        self.write([{"step": step, "time_s": step / 2, "loss/nll": step + value, "validation/hr@10": 0.5}
                    for step in range(first, last + 1)])

    def answers(self):
        return {"List": self.list, "Describe": self.describe, "ReadArtifact": self.read}

    def list(self, request, context):
        return job_pb2.ListResponse(jobs=[self.summary])

    def describe(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        return job_pb2.DescribeResponse(summary=self.summary, spec=self.spec, spec_digest="d1", run_folder="/runs/rl-7f2c",
                                        digests={"data": "d2"}, server_version="0.1.0")

    def read(self, request, context):
        self.pieces.append(request.offset)
        if request.path != "metrics.jsonl" or self.metrics is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no file '{request.path}'")
        if request.offset > len(self.metrics):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "offset")
        data = self.metrics[request.offset:request.offset + request.max_bytes]
        told = b"other" if self.damage else data
        return job_pb2.ReadArtifactResponse(data=data, total_bytes=len(self.metrics),
                                            chunk_sha256=hashlib.sha256(told).hexdigest())


class SeenWaits(threading.Event):
    """Of a mirror that follows: for how long it waited each time."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def wait(self, timeout=None):
        self.seen.append(timeout)
        return super().wait(timeout)


class JobTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        environment = mock.patch.dict(os.environ, XDG_STATE_HOME=self.path("state"), SLUICE_CONFIG=self.path("none"))
        environment.start()
        self.addCleanup(environment.stop)
        self.run_of = FakeRun()
        self.server = FakeMlflow()
        self.addCleanup(self.server.stop)
        self.client = None

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def serve(self, address="127.0.0.1:0", **answers):
        self.service = support.FakeJobs(address, **(answers or self.run_of.answers()))
        self.addCleanup(self.service.stop)
        return self.service.address

    def job(self):
        if self.client is None:
            self.client = sluice.Client(self.serve(), timeout=20)
            self.addCleanup(self.client.close)
        return self.client.job("rl")

    def mirror(self, to=None, **arguments):
        return mirror_run(self.job(), to or f"mlflow:{self.server.uri}", **arguments)

    def command(self, *arguments, server=None):
        """(exit code, standard output, standard error) of the command, in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["--job", "rl", "--server", server or self.service.address, *arguments])
        return code, out.getvalue(), err.getvalue()

    def want(self, last, value=0.0, first=1):
        return sorted([(s, "loss/nll", s + value) for s in range(first, last + 1)] +
                      [(s, "validation/hr_at_10", 0.5) for s in range(first, last + 1)])


class MlflowTest(JobTest):
    def test_metrics_spec_digests_and_state_arrive_and_a_second_call_adds_what_is_new(self):
        self.run_of.steps(1, 4)
        done = self.mirror()
        self.assertEqual((done.points, done.last_step, done.state), (8, 4, "running"))
        self.assertEqual(self.server.points(), self.want(4))
        run = self.server.runs["run0"]
        self.assertEqual((run["name"], run["status"]), (JOB, "RUNNING"))
        self.assertEqual(run["params"], {"name": "rl", "kind": "rl", "seed": "7", "rl.gate.tau": "0.3", "rl.record": "true"})
        self.assertEqual({key: run["tags"][f"sluice.{key}"] for key in ("job_id", "kind", "spec_digest", "digest.data", "state")},
                         {"job_id": JOB, "kind": "rl", "spec_digest": "d1", "digest.data": "d2", "state": "running"})
        self.assertNotIn("sluice.forked_from", run["tags"])  # of none
        self.assertEqual([p["timestamp"] for p in run["points"] if p["key"] == "loss/nll"],
                         [1000 * START_S + 500 * step for step in range(1, 5)])
        calls = len(self.server.calls)
        self.assertEqual(self.mirror().points, 0)
        self.assertEqual(len(self.server.calls), calls)  # nothing new: nothing is asked
        self.run_of.steps(5, 6)
        self.assertEqual(self.mirror().points, 4)
        self.assertEqual((self.server.points(), len(self.server.runs)), (self.want(6), 1))

    def test_each_end_of_a_job_is_one_of_mlflows(self):
        self.run_of.steps(1, 1)
        for state, exit_code, want in (("QUEUED", 0, "SCHEDULED"), ("PAUSED", 0, "RUNNING"), ("HELD", 13, "FAILED"),
                                       ("RUNNING", 0, "RUNNING"), ("FAILED", 3, "FAILED"), ("CANCELLED", 12, "KILLED"),
                                       ("SUCCEEDED", 0, "FINISHED")):
            self.run_of.end(getattr(job_pb2, f"JOB_STATE_{state}"), exit_code, f"it is {state}")
            self.mirror()
            run = self.server.runs["run0"]
            self.assertEqual((run["status"], run["tags"]["sluice.state"]), (want, state.lower()))
            self.assertEqual(run["tags"]["sluice.message"], f"it is {state}")
        self.assertEqual(run["end_time"], 1000 * (START_S + 60))
        self.assertEqual(self.server.points(), self.want(1))

    def test_a_machine_without_the_cursor_finds_the_run_by_the_job_and_sends_what_is_missing(self):
        self.run_of.steps(1, 5)
        self.mirror()
        # Of the middle something is lost, as by a request that died.
        points = self.server.runs["run0"]["points"]
        points.remove(next(p for p in points if (p["step"], p["key"]) == (3, "loss/nll")))
        self.run_of.steps(6, 8)
        os.environ["XDG_STATE_HOME"] = self.path("another")
        self.server.calls.clear()
        self.mirror()
        self.assertEqual(self.server.points(), self.want(8))
        self.assertEqual(list(self.server.runs), ["run0"])
        self.assertNotIn("runs/create", self.server.calls)
        # Each history is asked for once, in pages of two points.
        self.assertLessEqual(self.server.calls.count("metrics/get-history"), 6)
        self.assertEqual(self.mirror().points, 0)

    def test_another_experiment_has_a_run_of_its_own(self):
        self.run_of.steps(1, 2)
        self.mirror()
        self.mirror(experiment="other")
        self.assertEqual([run["experiment_id"] for run in self.server.runs.values()], ["1", "2"])
        self.assertEqual(len(self.server.runs["run1"]["points"]), 4)

    def test_a_job_that_has_not_begun_is_there_with_its_spec_alone(self):
        self.run_of.summary.state = job_pb2.JOB_STATE_QUEUED
        self.run_of.summary.ClearField("started")
        self.run_of.summary.submitted.FromSeconds(START_S - 5)
        self.serve()
        code, out, err = self.command("--to", "mlflow", "--uri", self.server.uri)
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"^nothing was measured yet: http://\S+/runs/run0; the job is queued\n$")
        self.assertEqual(self.server.runs["run0"]["params"]["rl.gate.tau"], "0.3")

    def test_a_long_file_comes_in_pieces(self):
        rows = 3 << 20
        self.run_of.write({"step": step, "text": "x" * 4000, "loss/nll": float(step)} for step in range(rows // 4000))
        self.assertEqual(self.mirror().points, rows // 4000)
        self.assertGreaterEqual(len(self.run_of.pieces), 4)
        self.run_of.pieces.clear()
        self.run_of.steps(10_000, 10_000)
        self.assertEqual(self.mirror().points, 2)
        self.assertTrue(all(offset > rows - 10_000 or offset == 0 for offset in self.run_of.pieces), self.run_of.pieces)

    def test_a_resumed_job_goes_on_and_keeps_first_values(self):
        self.run_of.steps(1, 5)
        self.run_of.end(job_pb2.JOB_STATE_FAILED, 11, "a peer is gone")
        self.mirror()
        run = self.server.runs["run0"]
        self.assertEqual((run["status"], run["tags"]["sluice.exit_code"]), ("FAILED", "11"))
        self.run_of.metrics = None  # cut back to the checkpoint of step 3
        self.run_of.steps(1, 3)
        self.run_of.end(job_pb2.JOB_STATE_RUNNING, 0, "")
        self.run_of.summary.ClearField("ended")
        self.mirror()
        self.assertEqual((run["status"], run["tags"]["sluice.exit_code"]), ("RUNNING", ""))
        self.run_of.steps(4, 8, value=0.25)
        done = self.mirror()
        self.assertTrue(done.kept_first)
        self.assertEqual(self.server.points(), sorted(self.want(5) + self.want(8, 0.25, first=6)))
        self.assertIn("sluice.resumed", self.server.runs["run0"]["tags"])

    def test_following_lives_through_a_restart_of_the_coordinator_and_ends_with_the_job(self):
        address = free_address()
        self.run_of.steps(1, 3)
        self.serve(address)
        client = sluice.Client(address, timeout=20)
        self.addCleanup(client.close)
        done, stop = [], SeenWaits()
        thread = threading.Thread(target=lambda: done.append(mirror_run(
            client.job("rl"), f"mlflow:{self.server.uri}", follow=True, every=0.02, patience=LIMIT_S, stop=stop)))
        thread.start()
        wait_until(lambda: self.server.runs and len(self.server.points()) == 6)
        self.service.stop()
        wait_until(lambda: any(seconds != 0.02 for seconds in stop.seen))  # it has met nobody, and tries again
        self.run_of.steps(4, 5)
        self.serve(address)
        wait_until(lambda: len(self.server.points()) == 10)
        self.run_of.steps(6, 6)
        self.run_of.end(job_pb2.JOB_STATE_HELD, 13, "diverged")
        thread.join(LIMIT_S)
        self.assertEqual((done[0].points, done[0].last_step, done[0].state), (12, 6, "held"))
        self.assertEqual((self.server.points(), self.server.runs["run0"]["status"]), (self.want(6), "FAILED"))

    def test_following_gives_a_lost_coordinator_up_in_the_end(self):
        self.run_of.steps(1, 1)
        self.serve()
        states = iter([False, True])

        def describe(request, context):
            if next(states, True):
                context.abort(grpc.StatusCode.UNAVAILABLE, "the coordinator stops")
            return self.run_of.describe(request, context)

        address = self.serve(**{**self.run_of.answers(), "Describe": describe})
        code, _, err = self.command("--to", "mlflow", "--uri", self.server.uri, "--follow", "--timeout", "0.2", "--patience",
                                    "0.2", server=address)
        self.assertEqual(code, 11)
        self.assertRegex(err, r"^sluice.mirror: no coordinator answers at .*\n$")


class RealMlflowTest(JobTest):
    def test_a_real_server_has_the_job_once_from_two_machines(self):
        uri = start_real_mlflow(self, self.folder)
        self.run_of.spec.data = ""  # an empty value is one
        self.run_of.spec.model.path = "/a path/of \u00e9"
        self.run_of.steps(1, 40)
        done = self.mirror("mlflow:" + uri, patience=240)
        self.assertEqual(done.points, 80)
        os.environ["XDG_STATE_HOME"] = self.path("another")
        self.run_of.steps(41, 50)
        self.run_of.end(job_pb2.JOB_STATE_CANCELLED, 12, "somebody cancelled it")
        self.mirror("mlflow:" + uri, patience=240)
        experiment, run_id = re.search(r"experiments/(\d+)/runs/(\w+)", done.place).groups()
        found = ask_mlflow(uri, "runs/search", experiment_ids=[experiment], filter=f"tags.`sluice.job_id` = '{JOB}'")
        (run,) = found["runs"]
        self.assertEqual(run["info"]["run_id"], run_id)
        self.assertEqual(points_of(uri, run_id, ("loss/nll", "validation/hr_at_10")), self.want(50))
        self.assertEqual((run["info"]["status"], run["info"]["end_time"]), ("KILLED", 1000 * (START_S + 60)))
        params = {item["key"]: item["value"] for item in run["data"]["params"]}
        self.assertEqual(params, {"name": "rl", "kind": "rl", "seed": "7", "rl.gate.tau": "0.3", "rl.record": "true",
                                  "data": "", "model.path": "/a path/of \u00e9"})
        tags = {item["key"]: item["value"] for item in run["data"]["tags"]}
        self.assertEqual((tags["sluice.state"], tags["sluice.digest.data"]), ("cancelled", "d2"))
        for state, want in (("QUEUED", "SCHEDULED"), ("RUNNING", "RUNNING"), ("HELD", "FAILED"), ("SUCCEEDED", "FINISHED")):
            self.run_of.end(getattr(job_pb2, f"JOB_STATE_{state}"), 0, "")
            self.assertEqual(self.mirror("mlflow:" + uri).points, 0)
            run = ask_mlflow(uri, "runs/get", run_id=run_id)["run"]
            self.assertEqual(run["info"]["status"], want)
        self.assertIn({"key": "sluice.message", "value": ""}, run["data"]["tags"])  # there is none any more


class TroubleTest(JobTest):
    def trouble(self, code, why, *arguments, server=None):
        got, out, err = self.command("--to", "mlflow", "--uri", self.server.uri, *arguments, server=server)
        self.assertEqual((got, out), (code, ""), err)
        self.assertIn(why, err)
        self.assertEqual(err.count("\n"), 1, err)

    def test_what_goes_wrong_on_the_way_to_the_job_is_one_sentence_with_a_code(self):
        self.trouble(11, "no coordinator answers at", server=free_address())
        self.trouble(2, "want HOST:PORT", server="nowhere")
        self.trouble(4, "is no coordinator", server=self.server.uri.removeprefix("http://"))
        for code, exit_code in ((grpc.StatusCode.PERMISSION_DENIED, 4), (grpc.StatusCode.UNAUTHENTICATED, 4)):
            self.serve(List=lambda r, c, code=code: c.abort(code, "the token of ada lacks the scope read"))
            self.trouble(exit_code, "lacks the scope read")
        self.serve(List=lambda r, c: job_pb2.ListResponse())
        self.trouble(2, "there is no job 'rl'")
        self.serve(List=self.run_of.list, Describe=self.run_of.describe)
        self.trouble(4, "is older than this package and cannot send files")
        self.run_of.steps(1, 1)
        self.run_of.damage = True
        self.serve()
        self.trouble(3, "bytes were damaged on their way")
        self.assertEqual([run["points"] for run in self.server.runs.values()], [[]])

    def test_a_machine_without_a_home_needs_a_file_for_the_cursor(self):
        self.run_of.steps(1, 1)
        self.serve()
        for name in ("XDG_STATE_HOME", "HOME"):
            os.environ.pop(name, None)
        self.trouble(2, "name a file with --cursor")
        code, _, err = self.command("--to", "mlflow", "--uri", self.server.uri, "--cursor", self.path("cursor"))
        self.assertEqual(code, 0, err)

    def test_who_asks_is_shown_to_the_coordinator(self):
        token = self.path("token")
        with open(token, "w", encoding="ascii") as file:
            file.write("sluice_abc\n")
        self.serve()
        code, _, err = self.command("--to", "mlflow", "--uri", self.server.uri, "--token-file", token)
        self.assertEqual((code, err), (0, ""))
        self.assertEqual({m.get("authorization") for m in self.run_of.metadata}, {"Bearer sluice_abc"})

    def test_a_run_must_be_one(self):
        with self.assertRaisesRegex(sluice.InvalidRequestError, "want a job, a run folder, or its path, got a int"):
            mirror_run(5, "tensorboard:x")


class FolderTest(JobTest):
    def test_event_files_keep_their_cursor_beside_them(self):
        self.run_of.steps(1, 3)
        self.serve()
        arguments = ("--to", "tensorboard", "--folder", self.path("tb"), "-o", "json")
        code, out, err = self.command(*arguments)
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(json.loads(out), {"schema_version": 1, "points": 6, "last_step": 3, "place": self.path("tb", JOB),
                                           "kept_first": False, "state": "running"})
        self.assertEqual(sorted(os.listdir(self.path("tb"))), [".sluice-mirror", JOB])
        self.assertFalse(os.path.exists(self.path("state")))
        self.run_of.steps(4, 4)
        self.assertEqual(json.loads(self.command(*arguments)[1])["points"], 2)

    def test_two_jobs_do_not_share_a_name(self):
        self.run_of.steps(1, 3)
        self.mirror("tensorboard:" + self.path("tb"), name="mine")
        self.run_of.summary.job_id = "rl-other"
        with self.assertRaisesRegex(sluice.TrackerError, "the events of another run; name this one by --name"):
            self.mirror("tensorboard:" + self.path("tb"), name="mine")


class WandbTest(JobTest):
    def setUp(self):
        super().setUp()
        try:
            import wandb
        except ImportError:
            wandb = None
        if not hasattr(wandb, "init"):  # a folder named wandb is a package too
            self.skipTest("wandb is not installed; './sluice proof trackers' installs it where it is in nobody's way")

    def segments(self):
        """(folder, records by kind) of each, as wandb's own messages."""
        from wandb_tools import read_records
        top = self.path("wandb", JOB)
        for name in sorted(os.listdir(top)):
            yield os.path.join(top, name), read_records(os.path.join(top, name))

    def test_segments_of_one_run_hold_config_steps_and_the_end(self):
        to = "wandb:" + self.path("wandb")
        self.run_of.steps(1, 3)
        self.assertEqual(self.mirror(to).points, 6)
        self.assertEqual(self.mirror(to).points, 0)
        self.run_of.steps(4, 5)
        self.assertEqual(self.mirror(to).points, 4)
        self.run_of.end(job_pb2.JOB_STATE_FAILED, 3, "the data are damaged")
        self.mirror(to)
        self.mirror(to)
        found = list(self.segments())
        self.assertEqual([os.path.basename(folder) for folder, _ in found],
                         ["segment-0001", "segment-0002", "segment-0003"])
        points = []
        for folder, records in found:
            (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
            self.assertEqual((run.run_id, run.project, run.job_type, run.display_name), (JOB, "sluice", "rl", JOB))
            config = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in run.config.update}
            self.assertEqual((config["rl.gate.tau"], config["rl.record"], config["seed"]), (0.3, True, 7))
            self.assertEqual(config["sluice"]["digest.data"], "d2")
            for record in records:
                if record.WhichOneof("record_type") == "history":
                    values = {item.key or "/".join(item.nested_key): json.loads(item.value_json)
                              for item in record.history.item}
                    points += [(record.history.step.num, key, value) for key, value in values.items() if key[0] != "_"]
        self.assertEqual(sorted(points), sorted((s, n.replace("_at_", "@"), v) for s, n, v in self.want(5)))
        self.assertEqual([[r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"]
                          for _, records in found], [[0], [0], [1]])

    def test_wandb_sync_sends_the_segments_as_one_run_one_behind_the_other(self):
        from wandb_tools import FakeWandb
        service = FakeWandb()
        self.addCleanup(service.stop)

        def sync():
            runs = [os.path.join(folder, "wandb", name) for folder, _ in self.segments()
                    for name in os.listdir(os.path.join(folder, "wandb")) if name.startswith("offline-run-")]
            environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
                "WANDB_BASE_URL": service.url, "WANDB_API_KEY": "a" * 40, "WANDB_ERROR_REPORTING": "false",
                "NO_PROXY": "127.0.0.1"}
            done = subprocess.run([os.path.join(sys.prefix, "bin", "wandb"), "sync", *runs], cwd=self.folder,
                                  capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL, env=environment)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return [json.loads(line) for line in service.history]

        to = "wandb:" + self.path("wandb")
        self.run_of.steps(1, 3)
        self.mirror(to)
        self.run_of.steps(4, 5)
        self.mirror(to)
        lines = sync()
        self.assertEqual([(line["_step"], line["loss/nll"], line["validation/hr@10"]) for line in lines],
                         [(step, step, 0.5) for step in range(1, 6)])
        # When it was measured, not when it was mirrored.
        self.assertEqual([line["_timestamp"] for line in lines], [START_S + step / 2 for step in range(1, 6)])
        self.assertEqual(service.configs[0]["rl.gate.tau"], {"value": 0.3})
        self.run_of.steps(6, 6)
        self.run_of.end(job_pb2.JOB_STATE_HELD, 13, "diverged")
        self.mirror(to)
        self.assertEqual([line["_step"] for line in sync()], [1, 2, 3, 4, 5, 6])  # what was sent is not sent again
        self.assertEqual(service.exit_codes, [0, 0, 1])


if __name__ == "__main__":
    support.main()
