"""sluice.mirror to a TrainJob's status: what Trainer's server is sent, by a scripted one over TLS, and what becomes of its answers."""
import contextlib
import http.server
import io
import json
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import threading
import unittest
from unittest import mock

import support

support.require("grpc")
import sluice  # noqa: E402
from sluice.mirror import mirror_run  # noqa: E402
from sluice.mirror.__main__ import main  # noqa: E402

PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/sluice/trainjobs/tiny/status"
START_S = 1_700_000_000


class FakeTrainer(http.server.ThreadingHTTPServer):
    """Trainer's status server, as its code has it (2.3): a token's check, the definition's bounds, Kubernetes' errors. Useful for:
    answers that are lost or strange. `script` holds what it does next: None, a status to answer, or "hang up"."""

    daemon_threads = True

    def __init__(self, folder):
        self.statuses, self.tokens, self.script = [], [], []
        super().__init__(("127.0.0.1", 0), FakeTrainerHandler)
        self.ca = os.path.join(folder, "ca.crt")
        key = os.path.join(folder, "tls.key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                        "-out", self.ca, "-days", "1", "-subj", "/CN=trainer", "-addext", "subjectAltName=IP:127.0.0.1"],
                       check=True, capture_output=True, timeout=60)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server_address[1]}{PATH}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, *unused):
        """A client that does not believe the certificate hangs up."""

    def stop(self):
        self.shutdown()
        self.server_close()


class FakeTrainerHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *unused):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.append(self.headers["Authorization"])
        step = self.server.script.pop(0) if self.server.script else None
        if step == "hang up":
            self.close_connection = True
            return
        code, answer = (step, {"kind": "Status", "message": f"because of {step}"}) if step else self.take(body)
        raw = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def take(self, body):
        status = json.loads(body)["trainerStatus"]
        assert self.path == PATH and len(body) <= 1 << 16 and self.headers["Content-Type"] == "application/json"
        assert set(status) <= {"progressPercentage", "estimatedRemainingSeconds", "metrics", "lastUpdatedTime"}, status
        for name, most in (("progressPercentage", 100), ("estimatedRemainingSeconds", 2**31 - 1)):
            assert name not in status or (type(status[name]) is int and 0 <= status[name] <= most), status
        assert len(status["metrics"]) <= 256
        for metric in status["metrics"]:
            assert set(metric) == {"name", "value"} and all(isinstance(text, str) and 1 <= len(text) <= 64 for text in metric.values())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", status.get("lastUpdatedTime", "2023-01-01T00:00:00Z"))
        self.server.statuses.append(status)
        return 200, {"trainerStatus": status}


@unittest.skipUnless(shutil.which("openssl"), "there is no openssl here: apt-get install openssl")
class KubeflowTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.run_folder = self.path("tiny")
        os.mkdir(self.run_folder)
        self.write("spec.yaml", "kind: rl\nrl:\n  steps: 200\n")
        os.utime(os.path.join(self.run_folder, "spec.yaml"), (START_S, START_S))
        self.trainer = FakeTrainer(self.folder)
        self.addCleanup(self.trainer.stop)
        self.token("first")
        self.variables = {"KUBEFLOW_TRAINER_SERVER_URL": self.trainer.url, "KUBEFLOW_TRAINER_SERVER_CA_CERT": self.trainer.ca,
                          "KUBEFLOW_TRAINER_SERVER_TOKEN": self.path("token")}
        patch = mock.patch.dict(os.environ, self.variables)
        patch.start()
        self.addCleanup(patch.stop)

    def path(self, name):
        return os.path.join(self.folder, name)

    def token(self, text):
        with open(self.path("token"), "w", encoding="utf-8") as file:
            file.write(text + "\n")

    def write(self, name, text, how="w"):
        with open(os.path.join(self.run_folder, name), how, encoding="utf-8") as file:
            file.write(text)

    def steps(self, first, last, how="a", **values):
        """Two seconds a step."""
        self.write("metrics.jsonl", "".join(json.dumps({"step": step, "time_s": 2 * step, "loss/nll": 3.0 - step / 100, **values}) + "\n"
                                            for step in range(first, last + 1)), how)

    def mirror(self, patience=0.5, **options):
        return mirror_run(self.run_folder, "kubeflow", patience=patience, **options)

    def test_a_status_says_how_far_it_is_when_it_ends_and_what_was_measured_last(self):
        self.steps(1, 50)
        self.write("metrics.jsonl", json.dumps({"step": 50, "time_s": 100, "validation/hr@10": 0.65}) + "\n", "a")
        done = self.mirror()
        self.assertEqual((done.points, done.last_step, done.place), (51, 50, self.trainer.url))
        # 150 of 200 steps are left, at two seconds each.
        self.assertEqual(self.trainer.statuses, [{
            "progressPercentage": 25, "estimatedRemainingSeconds": 300, "lastUpdatedTime": "2023-11-14T22:15:00Z",
            "metrics": [{"name": "loss/nll", "value": "2.5"}, {"name": "validation/hr@10", "value": "0.65"}]}])
        self.assertEqual(self.trainer.tokens, ["Bearer first"])
        self.assertEqual(self.mirror().points, 0)
        self.assertEqual(len(self.trainer.statuses), 1, "nothing new, nothing said")
        self.token("second")  # Trainer's tokens live for an hour
        self.steps(51, 100)
        self.mirror()
        status = self.trainer.statuses[-1]
        self.assertEqual((status["progressPercentage"], status["estimatedRemainingSeconds"], self.trainer.tokens[-1]), (50, 200, "Bearer second"))
        self.assertEqual(status["metrics"], [{"name": "loss/nll", "value": "2"}, {"name": "validation/hr@10", "value": "0.65"}])

    def test_a_hundred_per_cent_comes_with_the_results_and_once(self):
        self.steps(1, 200)
        self.mirror()
        self.assertEqual(self.trainer.statuses[-1]["progressPercentage"], 99)
        self.write("results.json", "{}")
        self.mirror(follow=True)
        self.mirror()
        self.assertEqual([status["progressPercentage"] for status in self.trainer.statuses], [99, 100])
        self.assertEqual(self.trainer.statuses[-1]["estimatedRemainingSeconds"], 0)

    def test_what_is_not_known_is_not_said(self):
        self.write("spec.yaml", "kind: sft\n")
        self.steps(1, 3, **{"name-" + "x" * 60: 1.0})
        self.mirror()
        (status,) = self.trainer.statuses
        self.assertEqual(sorted(status), ["lastUpdatedTime", "metrics"])
        self.assertEqual([metric["name"] for metric in status["metrics"]], ["loss/nll"], "a name that Trainer would refuse is left out")

    def test_a_job_that_goes_back_to_a_checkpoint_is_shown_where_it_is(self):
        self.steps(1, 100)
        self.mirror()
        self.steps(1, 60, "w")
        self.mirror()
        self.assertEqual([status["progressPercentage"] for status in self.trainer.statuses], [50, 30])

    def test_a_lost_answer_and_a_busy_server_are_asked_again(self):
        self.steps(1, 10)
        self.trainer.script = ["hang up", 503, 429]
        self.mirror(patience=60)
        self.assertEqual((len(self.trainer.statuses), len(self.trainer.tokens)), (1, 4))

    def test_a_server_that_stays_away_is_named_and_the_next_call_says_it_all(self):
        self.steps(1, 10)
        self.trainer.script = [500] * 1000
        with self.assertRaisesRegex(sluice.ServerDownError, "does not answer .*500: because of 500.*0.5 s"):
            self.mirror()
        self.trainer.script = []
        self.mirror()
        self.assertEqual(self.trainer.statuses[-1]["progressPercentage"], 5)

    def test_refusals_are_named_with_their_reason(self):
        self.steps(1, 10)
        for code, said in ((403, "token in .*a pod of its own TrainJob"), (404, "refused with 404: because of 404"), (422, "422")):
            self.trainer.script = [code]
            with self.assertRaisesRegex(sluice.TrackerError, said) as caught:
                self.mirror()
            self.assertEqual(caught.exception.exit_code, 4)

    def test_another_authority_is_not_believed(self):
        self.steps(1, 10)
        other = os.path.join(self.folder, "other")
        os.mkdir(other)
        trainer = FakeTrainer(other)
        self.addCleanup(trainer.stop)
        with mock.patch.dict(os.environ, KUBEFLOW_TRAINER_SERVER_CA_CERT=trainer.ca), \
                self.assertRaisesRegex(sluice.TrackerError, "certificate .* is not of"):
            self.mirror()
        self.assertEqual(self.trainer.tokens, [], "the token was not told")

    def test_outside_of_a_trainjob_the_missing_variable_is_named(self):
        self.steps(1, 10)
        for name in self.variables:
            with mock.patch.dict(os.environ, {name: ""}), self.assertRaisesRegex(sluice.InvalidRequestError, f"{name} is not set"):
                self.mirror()
        with mock.patch.dict(os.environ, KUBEFLOW_TRAINER_SERVER_URL="http://127.0.0.1:1"), \
                self.assertRaisesRegex(sluice.InvalidRequestError, "want https://"):
            self.mirror()
        with mock.patch.dict(os.environ, KUBEFLOW_TRAINER_SERVER_TOKEN=self.path("gone")), \
                self.assertRaisesRegex(sluice.InvalidRequestError, "files that can be read.*gone"):
            self.mirror()
        self.assertEqual(self.trainer.tokens, [])

    def test_the_command(self):
        self.steps(1, 20)
        said, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            self.assertEqual(main([self.run_folder, "--to", "kubeflow", "--patience", "0.5"]), 0)
            self.assertEqual(main([self.run_folder, "--to", "kubeflow", "--uri", "http://x"]), 2)
            self.assertEqual(main([self.run_folder, "--to", "kubeflow:x"]), 2)
        self.assertIn("20 points sent, up to step 20: https://127.0.0.1:", said.getvalue())
        self.assertIn("--uri is not for --to kubeflow", errors.getvalue())
        self.assertIn("got 'kubeflow:x'", errors.getvalue())
        self.assertEqual(self.trainer.statuses[-1]["progressPercentage"], 10)


if __name__ == "__main__":
    unittest.main()
