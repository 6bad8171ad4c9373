"""A gRPC relay that loses, doubles, delays, reorders and rewrites whole messages. Needs grpcio.

    with Relay(learner_address, rule) as relay:
        ... an actor works for relay.address ...

`rule(message)` says what becomes of each message: a list of (seconds to wait, payload). [(0, message.payload)] passes it
on, [] loses it, two entries double it, unlike waits reorder it among the later ones. It is called from many threads.

Requests of calls that are no stream are one message: one that is lost, or whose answer is, ends with UNAVAILABLE at the
caller, who cannot tell which of the two it was; one that is doubled is called twice, and the last answer is returned.
The relay knows nothing of the messages but the name of the method: it serves every service.
"""

import dataclasses
import heapq
import itertools
import threading
import time
from concurrent import futures

import grpc

UP, DOWN = "up", "down"
STREAMED_REQUESTS = {"Work"}
THREADS = 64
LONGEST_S = 86400
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclasses.dataclass(frozen=True)
class Message:
    method: str      # "Work"
    way: str         # UP: from the caller to the server
    number: int      # of its method and way, from 0, over all calls
    payload: bytes

    @property
    def kind(self):
        """Number of the first field: which one it is of the messages of a stream, each of which is a oneof."""
        return self.payload[0] >> 3 if self.payload else 0


def pass_on(message):
    return [(0, message.payload)]


class _Line:
    """Payloads on their way: given out when they are due, in the order of their times. Thread-safe."""

    def __init__(self):
        self._heap = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, wait_s, payload):
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + wait_s, next(self._order), payload))
            self._changed.notify_all()

    def close(self):
        """No more comes. What is under way is still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drop(self):
        with self._changed:
            self._heap.clear()
            self._closed = True
            self._changed.notify_all()

    def __iter__(self):
        return self

    def __next__(self):
        with self._changed:
            while True:
                if self._heap:
                    left = self._heap[0][0] - time.monotonic()
                    if left <= 0:
                        return heapq.heappop(self._heap)[2]
                    self._changed.wait(left)
                elif self._closed:
                    raise StopIteration
                else:
                    self._changed.wait()


class Relay(grpc.GenericRpcHandler):
    def __init__(self, target, rule=pass_on, address="127.0.0.1:0"):
        self.rule = rule
        self._numbers = {}
        self._lock = threading.Lock()
        self._channel = grpc.insecure_channel(target, NO_LIMIT + [("grpc.initial_reconnect_backoff_ms", 100),
                                                                  ("grpc.max_reconnect_backoff_ms", 500)])
        self._server = grpc.server(futures.ThreadPoolExecutor(THREADS), [self],
                                   options=NO_LIMIT + [("grpc.so_reuseport", 0)])
        port = self._server.add_insecure_port(address)
        self._server.start()
        self.address = f"127.0.0.1:{port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._server.stop(0).wait()
        self._channel.close()

    # Of grpc: whatever the method, on the wire a call of one message is a stream of one.
    def service(self, details):
        serve = self._stream if details.method.rsplit("/", 1)[1] in STREAMED_REQUESTS else self._single
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: serve(details.method, requests, context))

    def _fate(self, method, way, payload):
        name = method.rsplit("/", 1)[1]
        with self._lock:
            number = self._numbers.get((name, way), 0)
            self._numbers[name, way] = number + 1
        return self.rule(Message(name, way, number, payload))

    def _call(self, method, requests, context):
        metadata = [(key, value) for key, value in context.invocation_metadata() if key != "user-agent"]
        left_s = context.time_remaining()  # without a deadline: centuries, which a call would not take
        call = self._channel.stream_stream(method)(requests, metadata=metadata,
                                                   timeout=left_s if left_s and left_s < LONGEST_S else None)
        if not context.add_callback(call.cancel):
            call.cancel()
        return call

    def _single(self, method, requests, context):
        request = next(requests)
        calls = self._fate(method, UP, request)
        if not calls:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the request was lost on the way")
        try:
            for wait_s, payload in calls[:-1]:
                time.sleep(wait_s)
                list(self._call(method, iter([payload]), context))
            wait_s, payload = calls[-1]
            time.sleep(wait_s)
            for answer in self._call(method, iter([payload]), context):
                fates = self._fate(method, DOWN, answer)
                if not fates:
                    break
                time.sleep(fates[-1][0])
                yield fates[-1][1]
            else:
                return
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost on the way")

    def _stream(self, method, requests, context):
        up, down = _Line(), _Line()

        def move(messages, way, line):
            try:
                for payload in messages:
                    for wait_s, changed in self._fate(method, way, payload):
                        line.put(wait_s, changed)
            except Exception:  # of grpc: the stream broke; its status is told below
                pass
            line.close()
        call = self._call(method, up, context)
        context.add_callback(up.drop)
        for messages, way, line in ((requests, UP, up), (call, DOWN, down)):
            threading.Thread(target=move, args=(messages, way, line), daemon=True).start()
        yield from down
        up.drop()
        if call.code() is not grpc.StatusCode.OK:
            context.abort(call.code(), call.details())
