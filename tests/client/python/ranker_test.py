"""serve_ranker over a real channel: the protocol by its messages, and what hostile peers and functions do to it."""
import struct
import threading
import unittest

import support

support.require("grpc", "numpy")
import grpc  # noqa: E402
import numpy  # noqa: E402
import sluice  # noqa: E402
from sluice.inference import open_inference_pb2 as pb  # noqa: E402

CODE = grpc.StatusCode


def ten_times(user, history, item):
    """A score that tells apart what every input was."""
    return 100 * user + 10 * item + (history >= 0).sum(axis=1)


def tensor(name, datatype, shape, **contents):
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape,
                                                 contents=pb.InferTensorContents(**contents) if contents else None)


def typed(users=(1, 2), histories=((4, 5), (6, -1)), items=(7, 8), **more):
    """A request with typed contents."""
    width = len(histories[0])
    return pb.ModelInferRequest(model_name="ranker", inputs=[
        tensor("user", "INT64", [len(users)], int64_contents=users),
        tensor("history", "INT64", [len(histories), width], int64_contents=[i for row in histories for i in row]),
        tensor("item", "INT64", [len(items)], int64_contents=items)], **more)


def raw(request, *contents):
    """The request with raw contents in place of its typed ones."""
    for one in request.inputs:
        one.ClearField("contents")
    request.raw_input_contents.extend(contents)
    return request


class RankerTest(unittest.TestCase):
    def serve(self, fn=ten_times, **options):
        server = sluice.serve_ranker(fn, address="127.0.0.1:0", **options)
        self.addCleanup(server.stop, 0)
        self.channel = grpc.insecure_channel(server.address, options=[("grpc.enable_http_proxy", 0)])
        self.addCleanup(self.channel.close)
        return server

    def call(self, name, request, timeout=30):
        method = self.channel.unary_unary(f"/inference.GRPCInferenceService/{name}",
                                          request_serializer=lambda r: r
                                          if isinstance(r, bytes) else r.SerializeToString(),
                                          response_deserializer=getattr(pb, f"{name}Response").FromString)
        return method(request, timeout=timeout)

    def refused(self, request, code=CODE.INVALID_ARGUMENT, name="ModelInfer"):
        """The sentence that a request is refused with."""
        with self.assertRaises(grpc.RpcError) as raised:
            self.call(name, request)
        self.assertEqual(raised.exception.code(), code, raised.exception.details())
        return raised.exception.details()

    # ---------------------------------------------------------------------------------------------------- answers

    def test_rows_are_scored_with_their_user_history_and_item(self):
        self.serve()
        answer = self.call("ModelInfer", typed(id="request 7"))
        (output,) = answer.outputs
        self.assertEqual((answer.model_name, answer.model_version, answer.id), ("ranker", "1", "request 7"))
        self.assertEqual((output.name, output.datatype, list(output.shape)), ("score", "FP32", [2]))
        # 100 * 1 + 10 * 7 + two items of history; 100 * 2 + 10 * 8 + one.
        self.assertEqual(list(output.contents.fp32_contents), [172, 281])

    def test_raw_contents_are_answered_raw(self):
        self.serve()
        answer = self.call("ModelInfer", raw(typed(), struct.pack("<2q", 1, 2), struct.pack("<4q", 4, 5, 6, -1),
                                             struct.pack("<2q", 7, 8)))
        self.assertEqual(struct.unpack("<2f", answer.raw_output_contents[0]), (172, 281))
        self.assertFalse(answer.outputs[0].HasField("contents"))

    def test_inputs_are_taken_by_name_not_by_place(self):
        self.serve()
        request = typed()
        request.inputs.reverse()
        self.assertEqual(list(self.call("ModelInfer", request).outputs[0].contents.fp32_contents), [172, 281])

    def test_several_heads_are_answered_as_asked(self):
        self.serve(lambda user, history, item: {"click": item, "order": -item}, heads=("click", "order"))
        self.assertEqual([o.name for o in self.call("ModelInfer", typed()).outputs], ["click", "order"])
        (only,) = self.call("ModelInfer", typed(outputs=[{"name": "order"}])).outputs
        self.assertEqual((only.name, list(only.contents.fp32_contents)), ("order", [-7, -8]))

    def test_every_datatype_arrives_as_what_was_sent(self):
        values = {"BOOL": ([True, False], "bool_contents"), "INT8": ([-128, 127], "int_contents"),
                  "INT16": ([-32768, 9], "int_contents"), "INT32": ([-2**31, 1], "int_contents"),
                  "INT64": ([-2**63, 2**63 - 1], "int64_contents"), "UINT8": ([0, 255], "uint_contents"),
                  "UINT16": ([0, 65535], "uint_contents"), "UINT32": ([0, 2**32 - 1], "uint_contents"),
                  "UINT64": ([0, 2**64 - 1], "uint64_contents"), "FP32": ([0.5, -2.0], "fp32_contents"),
                  "FP64": ([1e300, 0.25], "fp64_contents"), "BYTES": ([b"", b"a\0\xff"], "bytes_contents")}
        formats = dict(BOOL="?",
                       INT8="b",
                       INT16="h",
                       INT32="i",
                       INT64="q",
                       UINT8="B",
                       UINT16="H",
                       UINT32="I",
                       UINT64="Q",
                       FP32="f",
                       FP64="d")
        got = {}

        def keep(*arrays):
            got.update(zip(names, arrays))
            return numpy.zeros(2)

        names = [*values, "FP16"]
        self.serve(keep, inputs=[sluice.TensorSpec(name, name, (-1,)) for name in names])
        raws = [b"".join(struct.pack("<I", len(v)) + v for v in values[n][0]) if n == "BYTES"
                else struct.pack("<2" + formats[n], *values[n][0]) for n in values] + [struct.pack("<2e", 0.5, -2)]
        request = pb.ModelInferRequest(model_name="ranker", inputs=[tensor(n, n, [2]) for n in names],
                                       raw_input_contents=raws)
        self.call("ModelInfer", request)
        for name, (want, _) in values.items():
            self.assertEqual(got[name].tolist(), want, name)
        self.assertEqual(got["FP16"].tolist(), [0.5, -2])
        # Typed: the same, but for FP16, which has no field.
        got.clear()
        names = list(values)
        self.serve(keep, inputs=[sluice.TensorSpec(name, name, (-1,)) for name in names])
        self.call("ModelInfer", pb.ModelInferRequest(model_name="ranker", inputs=[
            tensor(n, n, [2], **{field: want}) for n, (want, field) in values.items()]))
        for name, (want, _) in values.items():
            self.assertEqual(got[name].tolist(), want, name)

    def test_tritons_own_client_reads_metadata_scores_and_errors_in_the_same_process(self):
        try:
            import tritonclient.grpc as triton
        except (ImportError, RuntimeError):  # the latter is what it raises without its parts
            self.skipTest("tritonclient is not installed")
        client = triton.InferenceServerClient(self.serve().address)
        self.addCleanup(client.close)
        self.assertTrue(client.is_server_live() and client.is_server_ready() and client.is_model_ready("ranker"))
        metadata = client.get_model_metadata("ranker", as_json=True)
        self.assertEqual([one["name"] for one in metadata["inputs"]], ["user", "history", "item"])
        inputs = []
        for name, values in (("user", [1, 2]), ("history", [[4, 5], [6, -1]]), ("item", [7, 8])):
            array = numpy.array(values, dtype=numpy.int64)
            inputs.append(triton.InferInput(name, list(array.shape), "INT64"))
            inputs[-1].set_data_from_numpy(array)
        self.assertEqual(client.infer("ranker", inputs).as_numpy("score").tolist(), [172, 281])
        with self.assertRaisesRegex(Exception, "INVALID_ARGUMENT.*input 'item' is missing"):
            client.infer("ranker", inputs[:2])

    # -------------------------------------------------------------------------------------------- health, metadata

    def test_health_and_metadata_say_what_is_served(self):
        server = self.serve(name="mine", version="7", heads=("click", "order"))
        self.assertTrue(self.call("ServerLive", pb.ServerLiveRequest()).live)
        self.assertTrue(self.call("ServerReady", pb.ServerReadyRequest()).ready)
        self.assertTrue(self.call("ModelReady", pb.ModelReadyRequest(name="mine")).ready)
        self.assertEqual(self.call("ServerMetadata", pb.ServerMetadataRequest()).version, sluice.__version__)
        metadata = self.call("ModelMetadata", pb.ModelMetadataRequest(name="mine", version="7"))
        self.assertEqual([(t.name, t.datatype, list(t.shape)) for t in metadata.inputs],
                         [("user", "INT64", [-1]), ("history", "INT64", [-1, -1]), ("item", "INT64", [-1])])
        self.assertEqual([(t.name, t.datatype, list(t.shape)) for t in metadata.outputs],
                         [("click", "FP32", [-1]), ("order", "FP32", [-1])])
        self.assertEqual(list(metadata.versions), ["7"])
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        self.assertEqual(check(b"", timeout=30), b"\x08\x01")
        self.refused(pb.ModelReadyRequest(name="other"), CODE.NOT_FOUND, "ModelReady")
        self.assertIn("has no version '8'; it has '7'",
                      self.refused(pb.ModelMetadataRequest(name="mine", version="8"), CODE.NOT_FOUND, "ModelMetadata"))
        server.stop(0)
        with self.assertRaises(grpc.RpcError):
            check(b"", timeout=30)

    def test_health_answers_while_the_function_hangs_and_too_many_calls_are_refused(self):
        hang, entered = threading.Event(), threading.Event()
        self.addCleanup(hang.set)

        def slow(user, history, item):
            entered.set()
            hang.wait(60)
            return item

        self.serve(slow)
        method = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        message = typed().SerializeToString()
        ended = threading.Semaphore(0)
        calls = [method.future(message, timeout=60) for _ in range(20)]  # one runs, sixteen wait, three are too many
        for one in calls:
            one.add_done_callback(lambda _: ended.release())
        self.assertTrue(entered.wait(30))
        for _ in range(3):
            self.assertTrue(ended.acquire(timeout=30))
        self.assertTrue(self.call("ServerReady", pb.ServerReadyRequest()).ready)
        hang.set()
        codes = [one.code() for one in calls]
        self.assertEqual((codes.count(CODE.OK), codes.count(CODE.RESOURCE_EXHAUSTED)), (17, 3))

    def test_a_call_that_waits_longer_than_its_deadline_ends_and_the_next_one_is_served(self):
        hang = threading.Event()
        self.addCleanup(hang.set)
        self.serve(lambda user, history, item: hang.wait(60) and item)
        for _ in range(2):  # the one that runs, and one that waits for its turn
            with self.assertRaises(grpc.RpcError) as raised:
                self.call("ModelInfer", typed(), timeout=0.3)
            self.assertEqual(raised.exception.code(), CODE.DEADLINE_EXCEEDED)
        hang.set()
        self.assertEqual(list(self.call("ModelInfer", typed()).outputs[0].contents.fp32_contents), [7, 8])

    # -------------------------------------------------------------------------------------------------- hostile

    def test_hostile_requests_get_a_sentence(self):
        self.serve(max_elements=1000)
        self.assertIn("there is no model ''", self.refused(pb.ModelInferRequest(), CODE.NOT_FOUND))

        def changed(change):
            request = typed()
            change(request)
            return request

        def set_shape(index, shape):
            return lambda r: r.inputs[index].shape.__setitem__(slice(None), shape)

        for change, text in (
                (lambda r: r.inputs.pop(), "input 'item' is missing"),
                (lambda r: r.inputs.add(name="extra"), "there is no input 'extra'"),
                (lambda r: r.inputs.append(r.inputs[0]), "comes twice"),
                (lambda r: r.inputs.extend([r.inputs[0]] * 100), "want 3 inputs, got 103"),
                (lambda r: setattr(r.inputs[0], "datatype", "INT32"), "want INT64, got 'INT32'"),
                (lambda r: setattr(r.inputs[0], "datatype", "x" * 10000), "want INT64"),
                (set_shape(0, []), "want 1 dimensions"),
                (set_shape(0, [2] * 50), "want 1 dimensions"),
                (set_shape(0, [-2]), "want shape [-1]"),
                (set_shape(0, [3]), "want 3 elements"),
                (set_shape(0, [2**62]), "at most 1000 elements"),
                (set_shape(1, [2**40, 2**40]), "at most 1000 elements"),
                (set_shape(1, [2**63 - 1, 0]), "at most 1000 elements"),
                (set_shape(1, [0, 2**40]), "want at least one row"),
                (lambda r: r.inputs[0].contents.ClearField("int64_contents"), "want 2 elements"),
                (lambda r: r.inputs[0].contents.int_contents.append(1), "want INT64 in int64_contents"),
                (lambda r: r.raw_input_contents.append(b""), "raw contents for each of 3 inputs, got 1"),
                (lambda r: r.raw_input_contents.extend([b"", b"", b""]), "got both"),
                (lambda r: r.outputs.add(name="nothing"), "there is no output 'nothing'"),
                (lambda r: [r.outputs.add(name="score") for _ in range(2)], "asked for twice"),
                (lambda r: setattr(r, "id", "x" * 5000), "id: want at most 4096 bytes"),
        ):
            self.assertIn(text, self.refused(changed(change)))
        request = typed(items=(7, 8, 9))
        self.assertIn("want as many rows of each input, got 2 of 'user', 2 of 'history', 3 of 'item'",
                      self.refused(request))
        self.assertIn("want 16 bytes for shape [2] of INT64, got 15",
                      self.refused(raw(typed(), b"\0" * 15, b"\0" * 32, b"\0" * 16)))
        self.assertEqual(len(self.call("ModelInfer", typed()).outputs), 1)  # it still serves

    def test_hostile_bytes_and_narrow_numbers_get_a_sentence(self):
        self.serve(lambda b, i: i,
                   inputs=[sluice.TensorSpec("b", "BYTES", (-1,)),
                           sluice.TensorSpec("i", "INT8", (-1,))])

        def with_raw(content, count=2):
            return pb.ModelInferRequest(model_name="ranker", raw_input_contents=[content, b"\0" * 2],
                                        inputs=[tensor("b", "BYTES", [count]), tensor("i", "INT8", [2])])

        one = struct.pack("<I", 1) + b"x"
        for content, text in ((one, "hold 1"), (one * 3, "hold more"), (one + b"\1\0", "end within a length"),
                              (struct.pack("<I", 2**32 - 1) + b"x", "says 4294967295 bytes, 1 are left")):
            self.assertIn(text, self.refused(with_raw(content)))
        self.assertIn("want values of INT8 (-128 to 127), got -129 to 0", self.refused(pb.ModelInferRequest(
            model_name="ranker", inputs=[tensor("b", "BYTES", [2], bytes_contents=[b"", b""]),
                                         tensor("i", "INT8", [2], int_contents=[0, -129])])))

    def test_garbage_and_messages_beyond_the_bound_end_their_call_alone(self):
        self.serve(max_message_bytes=10000)
        with self.assertRaises(grpc.RpcError):
            self.call("ModelInfer", b"\xff" * 100)
        self.refused(typed(users=range(9000)), CODE.RESOURCE_EXHAUSTED)
        self.assertEqual(len(self.call("ModelInfer", typed()).outputs), 1)

    # -------------------------------------------------------------------------------------------------- the function

    def test_what_a_function_does_wrong_never_becomes_a_number(self):
        def throws(user, history, item):
            raise KeyError("x" * 5000)

        for fn, text in ((throws, "raised KeyError: "), (lambda u, h, i: i[:1],
                                                         "must return 'score' [2], got shape [1]"),
                         (lambda u, h, i: numpy.array([1, numpy.nan]), "returned nan as 'score' of row 1"),
                         (lambda u, h, i: i * 1e300, "returned inf"), (lambda u, h, i: None, "no array of numbers"),
                         (lambda u, h, i: ["1", "2"], "no array of numbers"), (lambda u, h, i: ["a", "b"],
                                                                               "no array of numbers"),
                         (lambda u, h, i: {}, "returned no 'score'"), (lambda u, h, i: h, "got shape [2, 2]")):
            self.serve(fn)
            with self.assertLogs("sluice.ranker") if fn is throws else self.subTest():
                said = self.refused(typed(), CODE.INTERNAL)
            self.assertIn(text, said)
            self.assertLess(len(said), 400)

    def test_arguments_are_checked(self):
        for options, text in (({
                "heads": ()
        }, "heads"), ({
                "heads": ("a", "a")
        }, "heads"), ({
                "inputs": ()
        }, "inputs"), ({
                "name": ""
        }, "name"), ({
                "concurrency": 0
        }, "concurrency"), ({
                "max_elements": 0
        }, "max_elem")):
            with self.assertRaisesRegex(sluice.InvalidRequestError, text):
                sluice.serve_ranker(ten_times, address="127.0.0.1:0", **options)
        for spec, text in ((("a", "INT65", (-1,)), "datatype"), (("a", "INT64", (2,)), "shape"),
                           (("", "INT64", (-1,)), "name"), (("a", "INT64", (-1, 0)), "shape")):
            with self.assertRaisesRegex(sluice.InvalidRequestError, text):
                sluice.TensorSpec(*spec)
        with self.assertRaisesRegex(sluice.InvalidRequestError, "a function"):
            sluice.serve_ranker(3)
        taken = self.serve()
        for address in ("8001", "127.0.0.1:99999", "127.0.0.1:-1", 8001):  # gRPC would take other ports for some
            with self.assertRaisesRegex(sluice.InvalidRequestError, "want HOST:PORT with a port from 0"):
                sluice.serve_ranker(ten_times, address=address)
        with self.assertRaisesRegex(sluice.ServerDownError, "cannot serve at"):
            sluice.serve_ranker(ten_times, address=taken.address)


if __name__ == "__main__":
    support.main()
