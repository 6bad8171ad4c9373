"""The relay before a server that notes what comes: lost, doubled, reordered and rewritten messages, and what a caller sees."""

import sys
import threading
import unittest
from concurrent import futures

try:
    import grpc
except ModuleNotFoundError:
    print("skipped: grpcio is not installed; './sluice setup' installs tests/client/python/requirements.txt")
    sys.exit(77)

from relay import DOWN, UP, Relay, pass_on

LIMIT_S = 60


class Noting(grpc.GenericRpcHandler):
    """Answers every message with itself, b"refuse" with NOT_FOUND; `got` is what came."""

    def __init__(self):
        self.got = []
        self.server = grpc.server(futures.ThreadPoolExecutor(8), [self])
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def service(self, details):
        def serve(requests, context):
            for request in requests:
                self.got.append(request)
                if request == b"refuse":
                    context.abort(grpc.StatusCode.NOT_FOUND, "there is none")
                yield request
        return grpc.stream_stream_rpc_method_handler(serve)


class RelayTest(unittest.TestCase):
    def setUp(self):
        self.server = Noting()
        self.addCleanup(lambda: self.server.server.stop(0).wait())

    def channel(self, rule):
        relay = Relay(self.server.address, rule)
        self.addCleanup(relay.close)
        channel = grpc.insecure_channel(relay.address)
        self.addCleanup(channel.close)
        return channel

    def ask(self, channel, payload):
        return channel.unary_unary("/some.Service/Ask")(payload, timeout=LIMIT_S)

    def test_what_is_not_touched_passes_with_its_status(self):
        channel = self.channel(pass_on)
        self.assertEqual(self.ask(channel, b"hello"), b"hello")
        self.assertEqual(list(channel.stream_stream("/some.Service/Work")(iter([b"a", b"", b"c"]), timeout=LIMIT_S)),
                         [b"a", b"", b"c"])
        with self.assertRaises(grpc.RpcError) as refused:
            self.ask(channel, b"refuse")
        self.assertEqual((refused.exception.code(), refused.exception.details()),
                         (grpc.StatusCode.NOT_FOUND, "there is none"))
        with self.assertRaises(grpc.RpcError) as refused:
            list(channel.stream_stream("/some.Service/Work")(iter([b"refuse"]), timeout=LIMIT_S))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_a_call_is_lost_before_or_after_it_had_its_effect_and_the_caller_sees_the_same(self):
        for way, effects in ((UP, []), (DOWN, [b"x"])):
            with self.subTest(way):
                self.server.got.clear()
                channel = self.channel(lambda m, way=way: [] if m.way == way else pass_on(m))
                with self.assertRaises(grpc.RpcError) as lost:
                    self.ask(channel, b"x")
                self.assertEqual(lost.exception.code(), grpc.StatusCode.UNAVAILABLE)
                self.assertEqual(self.server.got, effects)

    def test_a_call_is_doubled_and_answered_once(self):
        channel = self.channel(lambda m: pass_on(m) * 2 if m.way == UP else pass_on(m))
        self.assertEqual(self.ask(channel, b"twice"), b"twice")
        self.assertEqual(self.server.got, [b"twice"] * 2)

    def test_messages_of_a_stream_are_lost_doubled_rewritten_and_overtaken(self):
        overtaken = threading.Event()

        def rule(message):
            if message.way == DOWN:
                if message.payload == b"last":
                    overtaken.set()
                return pass_on(message)
            return {0: [], 1: pass_on(message) * 2, 2: [(0, b"other")], 3: [(0.2, message.payload)]}.get(
                message.number, pass_on(message))
        channel = self.channel(rule)

        def messages():
            yield from (b"lost", b"twice", b"rewritten", b"slow", b"last")
            overtaken.wait(LIMIT_S)
        answers = list(channel.stream_stream("/some.Service/Work")(messages(), timeout=LIMIT_S))
        self.assertEqual(answers, [b"twice", b"twice", b"other", b"last", b"slow"])

    def test_kinds_and_numbers_tell_messages_apart(self):
        seen = []

        def rule(message):
            seen.append((message.method, message.way, message.number, message.kind))
            return pass_on(message)
        self.ask(self.channel(rule), b"\x22\x00")
        self.assertEqual(seen, [("Ask", UP, 0, 4), ("Ask", DOWN, 0, 4)])


if __name__ == "__main__":
    unittest.main(verbosity=2)
