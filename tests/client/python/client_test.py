"""The client against a job service whose answers are scripted."""
import hashlib
import os
import socket
import sys
import tempfile
import threading
import unittest
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer

import support

support.require("grpc")
sys.path.insert(0, os.path.join(support.TOP, "tests", "integration"))
import grpc  # noqa: E402
import sluice  # noqa: E402
from harness import free_address  # noqa: E402
from sluice.v1 import job_pb2, spec_pb2  # noqa: E402

GOOD = job_pb2.ValidateResponse(given=spec_pb2.JobSpec(name="x"), effective_yaml="name: x\nseed: 1\n", spec_digest="d1")


def state(sequence, value, message="", exit_code=0):
    return job_pb2.JobEvent(sequence=sequence,
                            state=job_pb2.StateChange(state=value, message=message, exit_code=exit_code))


def point(sequence, step, **values):
    return job_pb2.JobEvent(sequence=sequence, metrics=job_pb2.MetricsPoint(step=step, total_steps=9, values=values))


RUNNING, SUCCEEDED, FAILED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED


def abort(code, text):
    return lambda request, context: context.abort(code, text)


class ClientTest(unittest.TestCase):
    def serve(self, address="127.0.0.1:0", **answers):
        """Returns (service, client)."""
        service = support.FakeJobs(address, **answers)
        self.addCleanup(service.stop)
        client = sluice.Client(service.address, timeout=20, watch_patience=30)
        self.addCleanup(client.close)
        return service, client

    # ------------------------------------------------------------------------------------------------ submitting

    def test_a_dict_is_validated_and_submitted_as_the_server_read_it(self):
        service, client = self.serve(Validate=lambda r, c: GOOD,
                                     Submit=lambda r, c: job_pb2.SubmitResponse(job_id="j-1", existed=True))
        job = client.submit({
            "kind": "rl",
            "rl": {
                "steps": 3
            }
        },
                            overrides={
                                "rl.steps": 5,
                                "data": "a b"
                            },
                            request_id="mine")
        self.assertEqual((job.id, job.existed), ("j-1", True))
        validate, submit = service.requests["Validate"][0], service.requests["Submit"][0]
        self.assertEqual(validate.spec_yaml, 'kind: "rl"\nrl:\n  steps: 3\n')
        self.assertEqual(list(validate.overrides), ["rl.steps=5", 'data="a b"'])
        self.assertEqual((submit.request_id, submit.spec.name), ("mine", "x"))
        self.assertIn("rl:\n  steps: 3\n# --set rl.steps=5\n", submit.spec_yaml)

    def test_each_submission_has_a_request_id_of_its_own(self):
        service, client = self.serve(Validate=lambda r, c: GOOD, Submit=lambda r, c: job_pb2.SubmitResponse(job_id="j"))
        client.submit("kind: sft\n")
        client.submit("kind: sft\n")
        first, second = (request.request_id for request in service.requests["Submit"])
        self.assertTrue(first and second)
        self.assertNotEqual(first, second)

    def test_a_submission_whose_answer_got_lost_is_repeated_under_the_same_id(self):
        lost = [True, True]

        def submit(request, context):
            if lost:
                lost.pop()
                context.abort(grpc.StatusCode.UNAVAILABLE, "the answer got lost")
            return job_pb2.SubmitResponse(job_id="j")

        service, client = self.serve(Validate=lambda r, c: GOOD, Submit=submit)
        self.assertEqual(client.submit("kind: sft\n").id, "j")
        self.assertEqual(len(service.requests["Submit"]), 3)
        self.assertEqual(len({request.request_id for request in service.requests["Submit"]}), 1)

    def test_every_mistake_of_a_spec_comes_with_its_place(self):
        lines = ["job.yaml:3:5: rl.steps: want at least 0, got -1", "job.yaml: data: required"]
        service, client = self.serve(Validate=lambda r, c: job_pb2.ValidateResponse(errors=lines))
        with self.assertRaises(sluice.BadSpecError) as raised:
            client.submit("kind: rl\n")
        first, second = raised.exception.mistakes
        self.assertEqual((first.source, first.line, first.column, first.message),
                         ("job.yaml", 3, 5, "rl.steps: want at least 0, got -1"))
        self.assertEqual((second.line, second.message), (0, lines[1]))
        self.assertEqual(str(raised.exception), "\n".join(lines))
        self.assertEqual(raised.exception.exit_code, 2)
        self.assertFalse(client.validate("kind: rl\n").ok)  # an answer, no exception

    def test_a_spec_that_cannot_be_read_or_is_too_large_is_not_sent(self):
        service, client = self.serve(Validate=lambda r, c: GOOD)
        for spec, kind in (("no/such/file.yaml", sluice.InvalidRequestError),
                           (__file__ + "/x", sluice.InvalidRequestError), ("a: b\n" * 300000, sluice.BadSpecError)):
            with self.assertRaises(kind):
                client.submit(spec)
        self.assertEqual(service.requests, {})

    # ---------------------------------------------------------------------------------------------------- looking

    def test_a_job_is_paused_killed_deleted_and_forked(self):
        service, client = self.serve(List=lambda r, c: job_pb2.ListResponse(jobs=[job_pb2.JobSummary(job_id="a-1", state=RUNNING)]),
                                     Pause=lambda r, c: job_pb2.PauseResponse(),
                                     Kill=lambda r, c: job_pb2.KillResponse(),
                                     Delete=lambda r, c: job_pb2.DeleteResponse(),
                                     Fork=lambda r, c: job_pb2.ForkResponse(job_id="f-1"))
        job = client.job("a-1")
        job.pause()
        job.kill()
        job.delete(files=True)
        fork = job.fork({"rl.steps": 5}, checkpoint="step-00000002")
        self.assertEqual(fork.id, "f-1")
        self.assertTrue(service.requests["Delete"][0].files)
        asked = service.requests["Fork"][0]
        self.assertEqual((asked.job_id, list(asked.overrides), asked.checkpoint), ("a-1", ["rl.steps=5"], "step-00000002"))
        self.assertTrue(asked.request_id)

    def test_an_older_coordinator_is_told_from_none(self):
        _, client = self.serve(List=lambda r, c: job_pb2.ListResponse(jobs=[job_pb2.JobSummary(job_id="a-1", state=RUNNING)]))
        with self.assertRaisesRegex(sluice.OlderServerError, "cannot pause jobs"):
            client.job("a-1").pause()

    def test_a_file_is_fetched_in_pieces_and_goes_on_after_a_fault(self):
        content = bytes(range(256)) * 40
        faults = [True]

        def read(request, context):
            if request.offset > 4000 and faults:
                faults.pop()
                context.abort(grpc.StatusCode.INTERNAL, "the disk")
            piece = content[request.offset:request.offset + 3000]
            last = request.offset + len(piece) == len(content)
            return job_pb2.ReadArtifactResponse(data=piece, total_bytes=len(content), identity="i",
                                                chunk_sha256=hashlib.sha256(piece).hexdigest(),
                                                sha256=hashlib.sha256(content).hexdigest() if last else "")

        listed = job_pb2.ListArtifactsResponse(artifacts=[job_pb2.Artifact(path="export/best/m", bytes=len(content)),
                                                          job_pb2.Artifact(path="other", bytes=1)])
        service, client = self.serve(List=lambda r, c: job_pb2.ListResponse(jobs=[job_pb2.JobSummary(job_id="a-1", state=RUNNING)]),
                                     ListArtifacts=lambda r, c: listed, ReadArtifact=read)
        job = client.job("a-1")
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaises(sluice.ServerError):
                job.download(folder, "export/")
            self.assertEqual(sorted(os.listdir(os.path.join(folder, "export", "best"))), ["m.part", "m.part.identity"])
            before = len(service.requests["ReadArtifact"])
            (path,) = job.download(folder, "export/")
            self.assertEqual(path.read_bytes(), content)
            self.assertEqual(service.requests["ReadArtifact"][before].offset, 6000)
            self.assertEqual(os.listdir(path.parent), ["m"])

    def test_a_server_does_not_choose_where_files_go(self):
        listed = job_pb2.ListArtifactsResponse(artifacts=[job_pb2.Artifact(path="../evil", bytes=1)])
        _, client = self.serve(List=lambda r, c: job_pb2.ListResponse(jobs=[job_pb2.JobSummary(job_id="a-1", state=RUNNING)]),
                               ListArtifacts=lambda r, c: listed)
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(sluice.RunFolderError):
            client.job("a-1").download(folder)

    def test_a_plan_has_its_checks_and_its_estimate(self):
        check = job_pb2.PlanCheck(name="data", result=job_pb2.PlanCheck.RESULT_FAILED, message="nowhere")
        _, client = self.serve(Validate=lambda r, c: GOOD,
                               Plan=lambda r, c: job_pb2.PlanResponse(checks=[check], plan_json='{"counts": {"steps": 3}}'))
        plan = client.plan("kind: sft\n")
        self.assertFalse(plan.ok)
        self.assertEqual((plan.checks[0].result, plan.counts["counts"]["steps"], plan.estimate_s), ("failed", 3, None))

    def test_jobs_are_listed_and_described_as_plain_values(self):
        summary = job_pb2.JobSummary(job_id="a-1",
                                     name="n",
                                     kind=spec_pb2.JOB_KIND_RL,
                                     state=RUNNING,
                                     step=3,
                                     total_steps=9,
                                     message="step 3")
        summary.submitted.FromSeconds(1_700_000_000)
        described = job_pb2.DescribeResponse(summary=summary, run_folder="/r", policy_version=4, metrics={"m": 0.5}, owner="ada",
                                             ledger=job_pb2.LedgerBalance(issued=5, trained=3, open=2),
                                             members=[job_pb2.MemberSummary(member_id="m", rank=0, actors=2)])
        service, client = self.serve(List=lambda r, c: job_pb2.ListResponse(jobs=[summary]),
                                     Describe=lambda r, c: described)
        (listed,) = client.list()
        self.assertEqual((listed.kind, listed.state, listed.exit_code), ("rl", sluice.JobState.RUNNING, None))
        self.assertEqual(listed.submitted.isoformat(), "2023-11-14T22:13:20+00:00")
        self.assertIsNone(listed.ended)
        job = client.describe("a-")
        self.assertEqual((job.summary, job.ledger.open, job.metrics["m"], job.members[0].actors), (listed, 2, 0.5, 2))
        self.assertEqual(job.owner, "ada")

    def test_an_id_may_be_abbreviated_if_that_is_unique(self):
        jobs = [job_pb2.JobSummary(job_id=i, state=RUNNING) for i in ("sft-abc", "sft-abd", "rl-xyz")]
        service, client = self.serve(List=lambda r, c: job_pb2.ListResponse(jobs=jobs))
        self.assertEqual(client.job("rl").id, "rl-xyz")
        self.assertEqual(client.job("abd").id, "sft-abd")
        with self.assertRaisesRegex(sluice.UnknownJobError, "sft-abc, sft-abd"):
            client.job("sft")
        for job in ("nothing", ""):
            with self.assertRaisesRegex(sluice.UnknownJobError, "there is no job"):
                client.job(job)

    # ---------------------------------------------------------------------------------------------------- watching

    def test_watch_tells_events_once_over_a_restart_and_says_what_is_missing(self):
        def first(request, context):
            self.assertEqual(request.after_sequence, 0)
            yield state(1, RUNNING)
            yield point(2, 1, nll=2.0)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the coordinator stops; watch again when it is back")

        def second(request, context):
            yield point(2, 1, nll=2.0)  # told before
            yield point(6, 5, nll=1.0)  # 3 to 5 are no longer kept
            yield state(7, SUCCEEDED, "done")

        streams = [first, second]
        service, client = self.serve(Watch=lambda r, c: streams.pop(0)(r, c))
        contacts = []
        events = list(sluice.Job(client, "j").watch(on_contact=contacts.append))
        self.assertEqual([type(e).__name__ for e in events],
                         ["StateEvent", "MetricsEvent", "GapEvent", "MetricsEvent", "StateEvent"])
        self.assertEqual([e.sequence for e in events], [1, 2, 5, 6, 7])
        self.assertEqual(events[2].missed, 3)
        self.assertEqual([r.after_sequence for r in service.requests["Watch"]], [0, 2])
        self.assertIsInstance(contacts[0], sluice.ServerDownError)
        self.assertEqual(contacts[1:], [None])

    def test_watch_finds_a_coordinator_that_was_dead_for_a_moment(self):
        address = free_address()

        def stream(request, context):
            yield state(1, RUNNING)
            died.wait(30)
            context.abort(grpc.StatusCode.UNAVAILABLE, "this coordinator dies")

        died = threading.Event()
        service, client = self.serve(address, Watch=stream)
        events = sluice.Job(client, "j").watch(on_contact=lambda lost: restart(lost))
        self.assertEqual(next(events).sequence, 1)

        def restart(lost):
            if lost is not None:  # nobody is there: now a new one comes
                again = support.FakeJobs(address, Watch=lambda r, c: iter([state(2, SUCCEEDED)]))
                self.addCleanup(again.stop)

        died.set()
        service.stop()
        self.assertEqual([e.sequence for e in events], [2])

    def test_watch_gives_up_with_the_token(self):
        service, client = self.serve(Watch=lambda r, c: iter([state(5, RUNNING)]) if r.after_sequence == 4 else
                                     abort(grpc.StatusCode.UNAVAILABLE, "away")(r, c))
        impatient = sluice.Client(service.address, watch_patience=0)
        self.addCleanup(impatient.close)
        events = sluice.Job(impatient, "j").watch(after=9)
        with self.assertRaisesRegex(sluice.ServerDownError, "after=9"):
            next(events)

    def test_leaving_the_loop_ends_the_stream_at_the_server(self):
        gone = threading.Event()

        def stream(request, context):
            context.add_callback(gone.set)
            yield state(1, RUNNING)
            gone.wait(60)

        service, client = self.serve(Watch=stream)
        for _ in sluice.Job(client, "j").watch():
            break
        self.assertTrue(gone.wait(30))

    def test_metrics_and_logs_are_what_there_is_of_them(self):
        events = [point(1, 1, nll=2.0), job_pb2.JobEvent(sequence=2, log=job_pb2.LogLine(level="info", text="hi")),
                  job_pb2.JobEvent(sequence=3), point(4, 2, nll=1.0)]  # 3: of a kind that a newer server knows
        service, client = self.serve(Watch=lambda r, c: iter(events))
        job = sluice.Job(client, "j")
        self.assertEqual(job.metrics().series("nll"), [(1, 2.0), (2, 1.0)])
        self.assertEqual([(log.text, log.role, log.source, log.said) for log in job.logs()], [("hi", "learner", "", None)])
        self.assertEqual([p.step for p in job.watch_metrics()], [1, 2])
        self.assertEqual([r.until_now for r in service.requests["Watch"]], [True, True, False])
        self.assertIsInstance(list(job.watch())[2], sluice.UnknownEvent)

    # ----------------------------------------------------------------------------------------------------- waiting

    def test_wait_gives_the_outcome_or_raises_its_kind(self):
        for value, code, kind in ((SUCCEEDED, 0, None), (FAILED, 3, sluice.JobFailedError),
                                  (FAILED, 10, sluice.JobPreemptedError),
                                  (job_pb2.JOB_STATE_CANCELLED, 12, sluice.JobCancelledError),
                                  (job_pb2.JOB_STATE_HELD, 13, sluice.JobHeldError)):
            service, client = self.serve(
                Watch=lambda r, c: iter([state(1, RUNNING), state(2, value, "so it was", code)]))
            job = sluice.Job(client, "j")
            outcome = job.wait(check=False)
            self.assertEqual((outcome.exit_code, outcome.message, outcome.ok), (code, "so it was", kind is None))
            if kind is None:
                self.assertEqual(job.wait(), outcome)
                continue
            with self.assertRaises(kind) as raised:
                job.wait()
            self.assertEqual((raised.exception.outcome, raised.exception.exit_code), (outcome, code))
            self.assertIn("so it was", str(raised.exception))

    def test_wait_asks_for_an_outcome_that_is_no_longer_among_the_events(self):
        summary = job_pb2.JobSummary(job_id="j", state=FAILED, exit_code=14, message="disk full")
        service, client = self.serve(Watch=lambda r, c: iter([]), Describe=lambda r, c: job_pb2.DescribeResponse(
            summary=summary))
        self.assertEqual(sluice.Job(client, "j").wait(check=False).exit_code, 14)

    def test_wait_ends_at_its_timeout_and_the_job_goes_on(self):
        end = threading.Event()
        self.addCleanup(end.set)

        def stream(request, context):
            yield state(1, RUNNING)
            end.wait(60)

        service, client = self.serve(Watch=stream)
        with self.assertRaisesRegex(sluice.DeadlineError, "it goes on"):
            sluice.Job(client, "j").wait(timeout=0.3)

    # ------------------------------------------------------------------------------------------------------ errors

    def test_nobody_at_the_address_is_said_at_once_with_the_remedy(self):
        client = sluice.Client(free_address(), timeout=600)
        self.addCleanup(client.close)
        with self.assertRaisesRegex(sluice.ServerDownError, "no coordinator answers at .*SLUICE_SERVER") as raised:
            client.list()
        self.assertEqual(raised.exception.exit_code, 11)

    def test_a_coordinator_that_is_slow_to_take_a_connection_is_waited_for(self):
        # One attempt to connect used to have 100 ms: a busy coordinator, or a distant one, was said not to be there.
        service, _ = self.serve(List=lambda r, c: job_pb2.ListResponse())
        _, _, port = service.address.rpartition(":")
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        later = threading.Event()

        def pump(source, sink):
            try:
                while data := source.recv(65536):
                    sink.sendall(data)
            except OSError:
                pass
            source.close()
            sink.close()

        def relay():
            near, _ = listener.accept()
            later.wait(0.5)  # the delay is the point
            far = socket.create_connection(("127.0.0.1", int(port)))
            threading.Thread(target=pump, args=(far, near), daemon=True).start()
            pump(near, far)

        threading.Thread(target=relay, daemon=True).start()
        client = sluice.Client(f"127.0.0.1:{listener.getsockname()[1]}", timeout=60)
        self.addCleanup(client.close)
        self.assertEqual(client.list(), [])

    def test_a_peer_that_hangs_up_and_a_host_that_nobody_knows_are_said(self):
        listener = socket.create_server(("127.0.0.1", 0))

        def hang_up():
            try:
                while True:
                    listener.accept()[0].close()
            except OSError:
                pass

        threading.Thread(target=hang_up, daemon=True).start()
        self.addCleanup(listener.close)
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)
        for server, text in ((f"127.0.0.1:{listener.getsockname()[1]}", "ends every connection at once: .* expects TLS"),
                             ("no-such-host.invalid:7070", "the host of no-such-host.invalid:7070 is not known here")):
            client = sluice.Client(server, timeout=1)
            self.addCleanup(client.close)
            with self.assertRaisesRegex(sluice.ServerDownError, text):
                client.list()

    def test_a_grpc_server_of_another_kind_is_the_wrong_port(self):
        server = grpc.server(futures.ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(None))
        client = sluice.Client(f"127.0.0.1:{port}")
        self.addCleanup(client.close)
        for call in (client.list, lambda: client.submit("kind: sft\n"), lambda: list(sluice.Job(client, "j").watch())):
            with self.assertRaisesRegex(sluice.WrongServerError, "is no coordinator"):
                call()

    def test_a_web_server_is_the_wrong_port(self):
        class Quiet(BaseHTTPRequestHandler):
            def log_message(self, *unused):
                pass

        web = HTTPServer(("127.0.0.1", 0), Quiet)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        self.addCleanup(web.server_close)
        self.addCleanup(web.shutdown)
        client = sluice.Client(f"127.0.0.1:{web.server_port}", timeout=10)
        self.addCleanup(client.close)
        with self.assertRaisesRegex(sluice.WrongServerError, "is no coordinator"):
            client.list()

    def test_an_older_coordinator_is_told_from_a_wrong_port(self):
        service, client = self.serve(List=lambda r, c: job_pb2.ListResponse())  # no Validate
        with self.assertRaisesRegex(sluice.OlderServerError, "older than this package") as raised:
            client.submit("kind: sft\n")
        self.assertEqual(raised.exception.exit_code, 4)

    def test_a_state_that_only_a_newer_coordinator_knows_is_no_guess(self):
        service, client = self.serve(List=lambda r, c: job_pb2.ListResponse(jobs=[job_pb2.JobSummary(state=99)]),
                                     Watch=lambda r, c: iter([state(1, 99)]))
        with self.assertRaisesRegex(sluice.NewerServerError, "state 99"):
            client.list()
        with self.assertRaises(sluice.NewerServerError):
            sluice.Job(client, "j").wait()

    def test_status_codes_become_types(self):
        for code, kind, exit_code in ((grpc.StatusCode.NOT_FOUND, sluice.UnknownJobError, 2),
                                      (grpc.StatusCode.INVALID_ARGUMENT, sluice.InvalidRequestError, 2),
                                      (grpc.StatusCode.FAILED_PRECONDITION, sluice.JobStateError, 4),
                                      (grpc.StatusCode.RESOURCE_EXHAUSTED, sluice.BusyError, 11),
                                      (grpc.StatusCode.DATA_LOSS, sluice.ServerError, 3),
                                      (grpc.StatusCode.INTERNAL, sluice.ServerError, 1)):
            service, client = self.serve(Cancel=abort(code, "so it is"))
            with self.assertRaisesRegex(kind, "so it is") as raised:
                sluice.Job(client, "j").cancel()
            self.assertEqual(raised.exception.exit_code, exit_code)
            self.assertIsInstance(raised.exception, sluice.SluiceError)

    def test_a_coordinator_that_does_not_answer_meets_the_deadline(self):
        hang = threading.Event()
        self.addCleanup(hang.set)
        service = support.FakeJobs(List=lambda r, c: hang.wait(60) and job_pb2.ListResponse())
        self.addCleanup(service.stop)
        client = sluice.Client(service.address, timeout=0.3)
        self.addCleanup(client.close)
        with self.assertRaisesRegex(sluice.DeadlineError, "within 0.3 s"):
            client.list()

    def test_arguments_are_checked_before_anything_is_sent(self):
        for server in ("nohost", ":7070", "h:0", "h:99999", "h:x", "h:" + "9" * 5000, "http://h:7070", 7070):
            with self.assertRaisesRegex(sluice.InvalidRequestError, "HOST:PORT"):
                sluice.Client(server)
        for timeout in (0, float("nan"), "5"):
            with self.assertRaisesRegex(sluice.InvalidRequestError, "want a timeout above 0"):
                sluice.Client(timeout=timeout)
        client = sluice.Client("127.0.0.1:1")
        self.addCleanup(client.close)
        for spec, text in ((None, "got a NoneType"), ("a\0b", "is no path of a file"), ({"name": "\ud800"}, "no text can"),
                           (os.path.dirname(__file__), "Is a directory"), ("nowhere.yaml", "cannot be read: No such")):
            with self.assertRaisesRegex(sluice.InvalidRequestError, text):
                client.submit(spec)
        with self.assertRaisesRegex(sluice.InvalidRequestError, "overrides: want a dict"):
            client.submit({}, overrides=["rl.steps=5"])
        for limit in (0, 1001):
            with self.assertRaisesRegex(sluice.InvalidRequestError, "1 to 1000"):
                client.list(limit)
        with self.assertRaises(sluice.InvalidRequestError):
            sluice.Job(client, "j").watch(after=-1)


if __name__ == "__main__":
    support.main()
