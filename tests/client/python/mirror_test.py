"""sluice.mirror: every point once, whatever dies in between; TensorBoard's own reader; an MLflow server, a strict fake
and, if $SLUICE_MLFLOW names the program `mlflow`, the real one."""
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

import support

support.require("grpc")
import sluice  # noqa: E402
from mlflow_servers import (LIMIT_S, FakeMlflow, ask_mlflow, points_of, start, start_real_mlflow,  # noqa: E402
                            wait_until)
from sluice.mirror import cursor as cursors, mirror_run  # noqa: E402
from sluice.mirror.__main__ import main  # noqa: E402
from sluice.mirror.mlflow import metric_name  # noqa: E402
from sluice.mirror.source import FolderSource  # noqa: E402
from sluice.mirror.target import Target  # noqa: E402
from sluice.mirror.tensorboard import crc32c  # noqa: E402

class Crash(BaseException):
    """A process that dies: nothing of the mirror catches it."""


class ListTarget(Target):
    """Keeps what is sent. Useful for: dying at a chosen moment, and seeing doubles, which it does not forgive: only a
    batch in doubt is compared with what is there."""

    identity = "list:"

    def __init__(self, max_points=3, replaces=False):
        self.max_points = max_points
        self.replaces = replaces
        self.points = []
        self.largest = 0
        self.crash_in = None  # the send in which it dies, from 0: half of the batch arrives
        self.sends = 0

    def open(self, cursor):
        self.place = "a list"

    def restart(self, cursor):
        self.points.clear()

    def send(self, rows, in_doubt, cursor):
        points = [(row.step, name, value) for row in rows for name, value in row.values.items()]
        self.largest = max(self.largest, len(points))
        if in_doubt:
            there = {point[:2] for point in self.points}
            points = [point for point in points if point[:2] not in there]
        self.sends += 1
        if self.crash_in == self.sends - 1:
            self.points += points[:(len(points) + 1) // 2]
            raise Crash
        self.points += points


class FolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.run_folder = self.path("rl-1")
        os.mkdir(self.run_folder)
        self.write("spec.yaml", "kind: rl\n")
        os.utime(self.path("rl-1", "spec.yaml"), (1_700_000_000, 1_700_000_000))

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text, mode="w"):
        with open(os.path.join(self.run_folder, name), mode, encoding="utf-8") as file:
            file.write(text)

    def rows(self, *rows, mode="a"):
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows), mode)

    def steps(self, first, last, value=0.0, mode="a"):
        """A row a step with two numbers, and at even steps another row with a third."""
        rows = []
        for step in range(first, last + 1):
            rows.append({"step": step, "time_s": step / 2, "loss/nll": step + value, "gate/open_rate": 0.5})
            if step % 2 == 0:
                rows.append({"step": step, "time_s": step / 2, "validation/hr@10": step / 100 + value})
        self.rows(*rows, mode=mode)

    def want(self, last, value=0.0, first=1):
        return sorted([(s, "loss/nll", s + value) for s in range(first, last + 1)] +
                      [(s, "gate/open_rate", 0.5) for s in range(first, last + 1)] +
                      [(s, "validation/hr@10", s / 100 + value) for s in range(first, last + 1) if s % 2 == 0])

    def command(self, *arguments):
        """(exit code, standard output, standard error) of the command, in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([self.run_folder, *arguments])
        return code, out.getvalue(), err.getvalue()


class CursorTest(FolderTest):
    def send(self, target):
        with cursors.Cursor(FolderSource(sluice.RunFolder(self.run_folder)), target.identity) as at:
            target.open(at)
            return at.send_new(target), at.kept_first

    def test_what_grows_is_sent_once_and_a_line_that_is_being_written_waits(self):
        target = ListTarget()
        self.assertEqual(self.send(target), (0, False))  # no file yet
        self.steps(1, 5)
        self.write("metrics.jsonl", '{"step": 6, "loss/nll": 6.0, "gate/op', "a")
        self.assertEqual(self.send(target)[0], 12)
        self.assertEqual(self.send(target)[0], 0)
        self.write("metrics.jsonl", 'en_rate": 0.5}\n', "a")
        self.assertEqual(self.send(target)[0], 2)
        self.rows({"step": 6, "validation/hr@10": 0.06}, {"step": 6, "bad": None, "worse": float("nan")})
        self.assertEqual(self.send(target)[0], 1)  # the same step goes on; what is no number is left out
        self.assertEqual(sorted(target.points), self.want(6))
        self.assertLessEqual(target.largest, 3)

    def test_a_process_that_dies_at_any_moment_leaves_nothing_out_and_nothing_twice(self):
        self.steps(1, 6)
        save, load = cursors.Cursor.save, cursors.Cursor._load
        moments = 0
        for after in (False, True):  # dies before, or right after, the n-th save
            for moment in range(100):
                shutil.rmtree(os.path.join(self.run_folder, "mirror"), ignore_errors=True)
                target, left = ListTarget(), [moment]

                def dying(self):
                    left[0] -= 1
                    if left[0] == -1 and not after:
                        raise Crash
                    save(self)
                    if left[0] == -1:
                        raise Crash

                cursors.Cursor.save = dying
                try:
                    self.send(target)
                    break  # there were not so many saves
                except Crash:
                    moments += 1
                finally:
                    cursors.Cursor.save = save
                self.send(target)
                self.assertEqual(sorted(target.points), self.want(6), (moment, after))
        for moment in range(100):  # within the n-th send
            shutil.rmtree(os.path.join(self.run_folder, "mirror"), ignore_errors=True)
            target = ListTarget()
            target.crash_in = moment
            try:
                self.send(target)
                break
            except Crash:
                moments += 1
            self.send(target)
            self.assertEqual(sorted(target.points), self.want(6), moment)
        self.assertGreater(moments, 20)
        self.assertIs(cursors.Cursor._load, load)

    def test_a_batch_in_doubt_that_a_resume_cut_short_is_still_in_doubt(self):
        self.steps(1, 6)
        target = ListTarget(max_points=12)
        target.crash_in = 0  # 8 of 12 points arrive: steps 1 to 4 but for the last of 4
        with self.assertRaises(Crash):
            self.send(target)
        self.steps(1, 2, mode="w")
        self.assertEqual(self.send(target)[0], 5)
        self.steps(3, 6, value=0.5)
        self.send(target)
        self.assertEqual(len(target.points), len({point[:2] for point in target.points}))
        self.assertEqual({point[:2] for point in target.points}, {point[:2] for point in self.want(6)})

    def test_after_a_resume_first_values_stay_or_all_are_replaced(self):
        for replaces in (False, True):
            shutil.rmtree(os.path.join(self.run_folder, "mirror"), ignore_errors=True)
            target = ListTarget(replaces=replaces)
            self.steps(1, 5, mode="w")
            self.send(target)
            self.steps(1, 3, mode="w")  # from the checkpoint of step 3
            self.steps(4, 8, value=0.25)
            self.assertEqual(self.send(target)[1], not replaces)
            want = self.want(3) + self.want(8, 0.25, first=4) if replaces else \
                self.want(5) + self.want(8, 0.25, first=6)
            self.assertEqual(sorted(target.points), sorted(want))
            self.send(target)
            self.assertEqual(len(target.points), len(want))

    def test_a_second_mirror_and_a_damaged_or_foreign_cursor_are_refused(self):
        self.steps(1, 2)
        target = ListTarget()
        with cursors.Cursor(FolderSource(sluice.RunFolder(self.run_folder)), target.identity) as held:
            with self.assertRaisesRegex(sluice.InvalidRequestError, "another mirror .* is at work"):
                self.send(target)
            held.save()
            path = held.path
        for text, kind, why in (("{", sluice.RunFolderError, "damaged"), ("[]", sluice.RunFolderError, "damaged"),
                                ('{"version": 9}', sluice.TrackerError, "of another release"),
                                ('{"version": 1, "identity": "x"}', sluice.InvalidRequestError, "of another target")):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            with self.assertRaisesRegex(kind, why):
                self.send(target)
        self.assertEqual(target.points, [])

    def test_a_damaged_line_is_named_and_what_is_before_it_was_not_lost(self):
        self.steps(1, 3)
        self.write("metrics.jsonl", "nonsense\n", "a")
        target = ListTarget(max_points=2)
        with self.assertRaisesRegex(sluice.RunFolderError, r"metrics.jsonl: the line that ends at byte \d+: not a JSON"):
            self.send(target)


class CommandTest(FolderTest):
    def test_mistakes_end_with_a_sentence_and_a_code(self):
        self.steps(1, 2)
        for arguments, code, why in (
                (("--to", "comet:x"), 2, "want mlflow:URI, tensorboard:FOLDER, wandb:FOLDER or kubeflow, got 'comet:x'"),
                (("--to", "mlflow:"), 2, "--to mlflow needs --uri http://HOST:PORT"),
                (("--to", "wandb"), 2, "--to wandb needs --folder FOLDER"),
                (("--to", "tensorboard", "--uri", "http://h"), 2, "--uri is not for --to tensorboard; it takes --folder"),
                (("--to", "mlflow:http://h", "--uri", "http://h"), 2, "want one of them"),
                (("--to", "tensorboard:x", "--job", "rl-1"), 2, "want a run folder, or --job JOB"),
                (("--to", "mlflow", "--uri", "localhost:5000"), 2, "want http://HOST:PORT of the MLflow server"),
                (("--to", "mlflow", "--uri", "ftp://h"), 2, "want http://HOST:PORT of the MLflow server"),
                (("--to", "tensorboard:x", "--every", "nan"), 2, "want more than 0 s"),
                (("--to", "mlflow:http://u:secret@h"), 2, "want no user or password in the address"),
                (("--to", "tensorboard:x", "--name", "a/b"), 2, "want a name without '/'"),
                (("--to", "tensorboard:x", "--every", "0"), 2, "want more than 0 s"),
                (("--to", "tensorboard:" + self.path("rl-1", "spec.yaml")), 14, "cannot be written: Not a directory"),
                (("--to", "tensorboard:x", "--cursor", self.path("rl-1", "spec.yaml", "c")), 2, "name a file for")):
            got, out, err = self.command(*arguments)
            self.assertEqual((got, out), (code, ""), err)
            self.assertIn(why, err)
            self.assertNotIn("secret", err)
            self.assertEqual(err.count("\n"), 1, err)
        self.run_folder = self.path("nowhere")
        got, _, err = self.command("--to", "tensorboard:x")
        self.assertEqual(got, 3)
        self.assertIn("there is no such run folder here", err)

    def test_a_run_folder_that_cannot_be_written_to_needs_a_cursor_elsewhere(self):
        self.steps(1, 2)
        os.mkdir(self.path("elsewhere"))
        code, out, err = self.command("--to", "tensorboard:" + self.path("tb"), "--cursor", self.path("elsewhere", "c"))
        self.assertEqual(code, 0, err)
        self.assertIn("5 points sent, up to step 2: ", out)
        self.assertFalse(os.path.exists(os.path.join(self.run_folder, "mirror")))

    def test_following_ends_with_the_results(self):
        self.steps(1, 2)
        done = []
        thread = threading.Thread(target=lambda: done.append(mirror_run(
            self.run_folder, "tensorboard:" + self.path("tb"), follow=True, every=0.01)))
        thread.start()
        wait_until(lambda: os.path.isdir(self.path("tb", "rl-1")))
        self.steps(3, 4)
        self.write("results.json", "{}")
        thread.join(LIMIT_S)
        self.assertEqual((done[0].points, done[0].last_step), (10, 4))

    def test_a_signal_ends_following_and_the_next_call_goes_on(self):
        self.steps(1, 2)
        process = start([self.run_folder, "--to", "tensorboard:" + self.path("tb"), "--follow", "--every", "600"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_until(lambda: os.path.isdir(self.path("tb", "rl-1")))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LIMIT_S)
        self.assertEqual((process.returncode, err), (0, ""))
        self.assertIn("5 points sent", out)
        self.steps(3, 3)
        self.assertIn("2 points sent, up to step 3", self.command("--to", "tensorboard:" + self.path("tb"))[1])


class TensorBoardTest(FolderTest):
    def read(self, name="rl-1"):
        """What TensorBoard's own reader makes of it."""
        try:
            from tensorboard.backend.event_processing import event_accumulator
        except ImportError:
            self.skipTest("tensorboard is not installed; tests/client/python/requirements.txt has it")
        reader = event_accumulator.EventAccumulator(self.path("tb", name), size_guidance={"scalars": 0})
        reader.Reload()
        return sorted((event.step, tag, round(event.value, 4)) for tag in reader.Tags()["scalars"]
                      for event in reader.Scalars(tag)), reader

    def mirror(self, **arguments):
        return mirror_run(self.run_folder, "tensorboard:" + self.path("tb"), **arguments)

    def test_the_checksum_is_castagnolis(self):
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)  # RFC 3720, B.4

    def test_tensorboards_reader_finds_every_point_with_its_time(self):
        self.steps(1, 5)
        self.assertEqual(self.mirror().points, 12)
        points, reader = self.read()
        self.assertEqual(points, self.want(5))
        self.assertEqual([event.wall_time for event in reader.Scalars("loss/nll")],
                         [1_700_000_000 + step / 2 for step in range(1, 6)])
        self.assertEqual(reader.file_version, 2)
        self.rows({"step": 6, "loss/nll": 1e300, "loss/grpo": -0.0, "n": 2**40})
        self.mirror()
        self.assertIn((6, "loss/nll", float("inf")), self.read()[0])
        self.assertEqual(self.mirror().points, 0)

    def test_what_a_killed_process_wrote_behind_the_cursor_is_cut_off(self):
        self.steps(1, 2)
        self.mirror()
        (name,) = os.listdir(self.path("tb", "rl-1"))
        path = self.path("tb", "rl-1", name)
        with open(path, "rb") as file:
            whole = file.read()
        for behind in (whole[-30:], b"\x10", whole):
            with open(path, "wb") as file:
                file.write(whole + behind)
            # Nothing new: nothing is touched, and a torn record at the end does not disturb the reader.
            self.mirror()
        self.steps(3, 3)
        self.mirror()
        self.assertEqual(self.read()[0], self.want(3))
        with open(path, "r+b") as file:
            file.truncate(10)
        with self.assertRaisesRegex(sluice.TrackerError, "bytes long and is 10 now"):
            self.mirror()

    def test_a_resumed_job_replaces_what_was_abandoned(self):
        self.steps(1, 5)
        self.mirror()
        self.steps(1, 3, mode="w")
        self.steps(4, 8, value=0.25)
        done = self.mirror()
        self.assertFalse(done.kept_first)
        self.assertEqual(self.read()[0], sorted(self.want(3) + self.want(8, 0.25, first=4)))

    def test_a_folder_with_another_runs_events_is_refused(self):
        self.steps(1, 2)
        self.mirror(name="mine")
        self.run_folder = self.path("rl-2")
        os.mkdir(self.run_folder)
        self.steps(1, 2)
        with self.assertRaisesRegex(sluice.TrackerError, "the events of another run; name this one by --name"):
            self.mirror(name="mine")
        self.mirror(name="other")
        self.assertEqual(self.read("other")[0], self.want(2))


class MlflowTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.server = FakeMlflow()
        self.addCleanup(self.server.stop)

    def want(self, *arguments, **more):
        return sorted((step, metric_name(name), value) for step, name, value in super().want(*arguments, **more))

    def mirror(self, **arguments):
        return mirror_run(self.run_folder, "mlflow:" + self.server.uri, **arguments)

    def test_points_names_times_and_the_end_arrive(self):
        self.steps(1, 4)
        done = self.mirror(name="first try", experiment="beauty")
        self.assertEqual((done.points, done.last_step), (10, 4))
        self.assertEqual(done.place, f"{self.server.uri}/#/experiments/1/runs/run0")
        self.assertEqual(self.server.points(), self.want(4))
        run = self.server.runs["run0"]
        self.assertEqual((run["name"], run["status"]), ("first try", "RUNNING"))
        self.assertEqual(run["tags"]["sluice.run_folder"], os.path.realpath(self.run_folder))
        self.assertEqual([p["timestamp"] for p in run["points"] if p["key"] == "loss/nll"],
                         [1_700_000_000_000 + 500 * step for step in range(1, 5)])
        self.steps(5, 6)
        self.write("results.json", "{}")
        self.mirror(name="first try", experiment="beauty")
        self.assertEqual((self.server.points(), run["status"]), (self.want(6), "FINISHED"))
        # Under another name it is another run.
        self.mirror(name="second", experiment="beauty")
        self.assertEqual(len(self.server.runs), 2)
        self.assertEqual(self.server.runs["run1"]["points"], run["points"])

    def test_requests_hold_a_thousand_points_at_most(self):
        self.rows({"step": 1, **{f"m{i}": float(i) for i in range(2500)}}, {"step": 2, "m0": 1.0})
        self.mirror()
        self.assertEqual(self.server.calls.count("runs/log-batch"), 4)
        self.assertEqual(len(self.server.points()), 2501)

    def test_an_answer_that_is_lost_after_the_deed_doubles_nothing(self):
        self.steps(1, 6)
        for call in ("experiments/create", "runs/create", "runs/log-batch", "runs/search", "metrics/get-history",
                     "runs/log-batch params", "runs/log-batch tags"):
            for trouble in ("lost", "503"):
                with self.subTest(call=call, trouble=trouble):
                    shutil.rmtree(os.path.join(self.run_folder, "mirror"), ignore_errors=True)
                    self.server.runs.clear()
                    self.server.experiments = {"Default": "0"}
                    self.server.calls.clear()
                    self.server.trouble = lambda name, number: trouble if name == call and number == 0 or (
                        call == "metrics/get-history" and name == "runs/log-batch" and number == 0) else None
                    self.mirror()
                    self.assertEqual(self.server.points(), self.want(6))

    def test_a_server_that_answers_too_late_is_asked_what_it_did(self):
        self.steps(1, 5)
        self.server.trouble = lambda call, number: "hold" if call == "runs/log-batch" and number == 0 else None
        with mock.patch("sluice.mirror.mlflow._REQUEST_S", 0.2):
            self.mirror()
        self.assertEqual(self.server.points(), self.want(5))
        self.assertIn("metrics/get-history", self.server.calls)

    def test_a_mirror_that_is_killed_in_the_middle_of_a_request_goes_on(self):
        self.steps(1, 5)
        self.server.trouble = lambda call, number: "hold" if call == "runs/log-batch" and number == 0 else None
        process = start([self.run_folder, "--to", "mlflow:" + self.server.uri])
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        self.assertTrue(self.server.held.wait(LIMIT_S))
        process.kill()
        process.wait()
        self.assertEqual(self.server.points(), self.want(5))  # it was done, and nobody knows
        self.steps(6, 8)
        code, out, err = self.command("--to", "mlflow:" + self.server.uri)
        self.assertEqual(code, 0, err)
        self.assertEqual(self.server.points(), self.want(8))
        self.assertIn("get-history", " ".join(self.server.calls))

    def test_steps_that_a_resumed_job_measured_again_keep_their_first_values_and_it_says_so(self):
        self.steps(1, 5)
        self.mirror()
        self.steps(1, 3, mode="w")
        self.steps(4, 8, value=0.25)
        code, _, err = self.command("--to", "mlflow:" + self.server.uri)
        self.assertEqual(code, 0)
        self.assertIn("keep their first values", err)
        self.assertEqual(self.server.points(), sorted(self.want(5) + self.want(8, 0.25, first=6)))
        self.assertIn("sluice.resumed", self.server.runs["run0"]["tags"])

    def test_what_goes_wrong_is_one_sentence_with_a_code(self):
        self.steps(1, 2)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
            for uri, trouble, code, why in (
                    (nobody, None, 11, "does not answer (Connection refused), tried for 0.2 s; mirror again when it does"),
                    (None, "503", 11, "does not answer (it answered 503: busy)"),
                    (None, (200, b"<html>hello</html>"), 4, "is no MLflow server (experiments/get-by-name gave 200"),
                    (None, (404, b"not here"), 4, "is no MLflow server"),
                    (None, (401, b"who are you"), 4, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
                    (None, (403, {"error_code": "PERMISSION_DENIED", "message": "not yours"}), 4,
                     "refuses access (not yours); set MLFLOW_TRACKING_USERNAME"),
                    (None, (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "odd\n name"}), 4,
                     "refused: odd name")):
                self.server.trouble = lambda call, number: trouble
                got, out, err = self.command("--to", f"mlflow:{uri or self.server.uri}", "--patience", "0.2")
                self.assertEqual((got, out), (code, ""), err)
                self.assertIn(why, err.replace("[Errno 111] ", ""))
                self.assertEqual(err.count("\n"), 1, err)
        self.server.trouble = lambda call, number: None
        self.assertEqual(self.command("--to", "mlflow:" + self.server.uri)[0], 0)
        self.steps(3, 3)
        self.server.runs.clear()
        code, _, err = self.command("--to", "mlflow:" + self.server.uri)
        self.assertEqual(code, 4)
        self.assertRegex(err, r"has no run run0 that can be written \(.*not found\); .* remove \S+json to mirror")

    def test_two_metrics_that_mlflow_cannot_tell_apart_are_refused(self):
        self.rows({"step": 1, "hr@1": 0.5, "hr_at_1": 0.25})
        with self.assertRaisesRegex(sluice.TrackerError, "would both be 'hr_at_1'"):
            self.mirror()

    def test_access_is_by_the_variables_of_mlflows_own_client(self):
        from sluice.mirror import mlflow
        before = dict(os.environ)
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(before)))
        os.environ.update(MLFLOW_TRACKING_USERNAME="u", MLFLOW_TRACKING_PASSWORD="p")
        self.assertEqual(mlflow._authorization(), {"Authorization": "Basic dTpw"})
        os.environ["MLFLOW_TRACKING_TOKEN"] = "t"
        self.assertEqual(mlflow._authorization(), {"Authorization": "Bearer t"})


class RealMlflowTest(FolderTest):
    def test_a_real_server_has_every_point_once_over_kills(self):
        uri = start_real_mlflow(self, self.folder)
        self.steps(1, 300)
        self.write("results.json", "{}")
        # Killed after as many saves of the cursor as it takes to be somewhere in the middle, twice.
        patience = ("--patience", "240")
        for _ in range(2):
            process = start([self.run_folder, "--to", f"mlflow:{uri}", *patience])
            before = self.cursor()
            wait_until(lambda: self.cursor() != before and self.cursor().get("state", {}).get("run_id"), 240)
            process.kill()
            process.communicate()
        process = start([self.run_folder, "--to", f"mlflow:{uri}", *patience])
        out, err = process.communicate(timeout=240)
        self.assertEqual(process.returncode, 0, err)
        experiment, run = re.search(r"experiments/(\d+)/runs/(\w+)", out).groups()
        names = ("loss/nll", "gate/open_rate", "validation/hr_at_10")
        self.assertEqual(points_of(uri, run, names), sorted((s, metric_name(n), v) for s, n, v in self.want(300)))
        got = ask_mlflow(uri, "runs/get", run_id=run)["run"]
        self.assertEqual((got["info"]["status"], got["info"]["run_name"]), ("FINISHED", "rl-1"))
        self.assertEqual(got["data"]["params"], [{"key": "kind", "value": "rl"}])
        found = ask_mlflow(uri, "runs/search", experiment_ids=[experiment], max_results=10)
        self.assertEqual(len(found["runs"]), 1)

    def cursor(self):
        folder = os.path.join(self.run_folder, "mirror")
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if name.endswith(".json"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    return json.load(file)
        return {}


class WandbTest(FolderTest):
    def test_without_the_package_it_says_what_to_install(self):
        if has_wandb():
            self.skipTest("wandb is installed")
        code, _, err = self.command("--to", "wandb:" + self.path("wandb"))
        self.assertEqual(code, 2)
        self.assertIn("pip install wandb", err)

    def test_every_call_with_something_new_writes_a_whole_segment(self):
        if not has_wandb():
            self.skipTest("wandb is not installed (pip install wandb)")
        self.steps(1, 4)
        to = "wandb:" + self.path("wandb")
        self.assertEqual(mirror_run(self.run_folder, to).points, 10)
        self.assertEqual(mirror_run(self.run_folder, to).points, 0)
        self.steps(5, 6)
        os.makedirs(self.path("wandb", "rl-1", "segment-0002", "half"))  # what a killed one left
        self.assertEqual(mirror_run(self.run_folder, to).points, 5)
        names = sorted(os.listdir(self.path("wandb", "rl-1")))
        self.assertEqual(names, ["segment-0001", "segment-0002"])
        points = [point for name in names for point in self.read(self.path("wandb", "rl-1", name))]
        self.assertEqual(sorted(points), self.want(6))

    def read(self, segment):
        from wandb_tools import read_records
        for record in read_records(segment):
            if record.WhichOneof("record_type") == "history":
                values = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                step = values.get("_step", record.history.step.num)
                yield from ((step, name, value) for name, value in values.items() if not name.startswith("_"))


def has_wandb():
    try:
        import wandb
    except ImportError:
        return False
    return hasattr(wandb, "init")


if __name__ == "__main__":
    support.main()
